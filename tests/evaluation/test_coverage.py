"""Coverage of annotated objects by stored regions."""

from matir_cli import masks
from matir_cli.evaluation.coverage import Coverage, annotated_objects, measure_coverage
from matir_cli.evaluation.methods import EvaluationSetup
from matir_cli.progress import no_progress


def test_objects_with_a_matching_region_are_covered(setup: EvaluationSetup) -> None:
    objects = annotated_objects(setup.dataset)
    assert sum(map(len, objects.values())) == 9
    assert measure_coverage(setup, objects, no_progress) == Coverage(9, (9, 9))
    # A mask three fifths as high overlaps its region by 0.6.
    whole = masks.decode(setup.dataset.instances(3, 14)[0])
    part = whole.copy()
    part[35:] = False
    assert 0.5 < part.sum() / whole.sum() < 0.75
    halved = {14: [masks.encode(part)], 99: [masks.encode(whole)]}
    assert measure_coverage(setup, halved, no_progress) == Coverage(2, (1, 0))
