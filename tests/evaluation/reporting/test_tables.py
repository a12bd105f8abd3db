"""The paper's tables from measurements."""

from matir_cli.evaluation.methods import EvaluationSetup
from matir_cli.evaluation.reporting import paper
from matir_cli.evaluation.reporting.tables import NO_JUDGE, NOT_CHOSEN, NOT_IMPORTED, paper_tables
from tests.evaluation.scenes import means, measure, method_of


def test_without_a_judge_only_stage_1_has_figures(setup: EvaluationSetup) -> None:
    method = method_of(setup, None)
    measurements = measure(setup, method)
    four = paper_tables(measurements)
    assert [table.number for table in four] == [1, 2, 3, 4]
    assert means(measurements.stage_1) == means(measurements.best_region) == 1.0
    absent = {row.method: row.note for table in four for row in table.rows if row.values is None}
    assert absent["MaTIR"] == NO_JUDGE
    assert absent["Dense-CLIP"] == NOT_CHOSEN
    assert absent["LISA++"] == NOT_IMPORTED
    stage_1 = next(row for row in four[0].rows if "stage 1" in row.method)
    assert stage_1.paper == paper.PaperFigures(83.54, 40.75)
    assert stage_1.summary is not None
    assert stage_1.by_group(setup.queries).keys() == {"r", "g", "b"}
