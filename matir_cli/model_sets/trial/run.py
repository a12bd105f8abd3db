"""Trial of the parts of a model set, one after the other, with the real files on the chosen device."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing

from matir_cli.engines.registry import (
    REGION_ENCODERS,
    load_judge,
    load_proposer,
    load_region_encoder,
    load_text_encoder,
)
from matir_cli.errors import (
    CheckpointInvalid,
    ContextTooSmall,
    EngineFailed,
    MatirError,
    MemoryTooSmall,
    WeightsMissing,
)
from matir_cli.model_sets.catalogue import ModelPart, ModelSet
from matir_cli.model_sets.session import locate_part
from matir_cli.model_sets.trial.encoder import try_encoder
from matir_cli.model_sets.trial.findings import TrialFinding, TrialState, one_of
from matir_cli.model_sets.trial.judge import try_judge
from matir_cli.model_sets.trial.pictures import TrialWorld
from matir_cli.model_sets.trial.proposer import try_proposer
from matir_cli.model_sets.trial.worlds import WORLDS
from matir_cli.model_sets.weights import expected_path, local_path
from matir_cli.progress import ProgressObserver
from matir_cli.records import EngineConfig


def locate_trial_parts(model_set: ModelSet, kinds: Collection[str]) -> list[tuple[ModelPart, EngineConfig]]:
    """Locate the files of the parts `kinds`, in the set's order, before anything is loaded.

    Raises:
        PartMissing: the set has no such part.
        WeightsMissing: files are missing; the error names those of all parts.
        WeightsChanged, CheckpointInvalid, ModelSetInvalid: as in `session.locate_part`.
    """
    for kind in kinds:
        model_set.part(kind)
    parts = [part for part in model_set.parts if part.kind in kinds]
    missing = [expected_path(file) for part in parts for file in part.files if local_path(file) is None]
    if missing:
        raise WeightsMissing(model_set.handle, missing)
    return [(part, locate_part(model_set, part.kind)) for part in parts]


def try_part(
    model_set: ModelSet, part: ModelPart, config: EngineConfig, device: str, progress: ProgressObserver
) -> list[TrialFinding]:
    """Load a part, try it in the set's world, and free it.

    Args:
        model_set: the set, which names the world.
        part: the part of it to try.
        config: its located files, see `locate_trial_parts`.
        device: "auto", "cuda", "mps" or "cpu".
        progress: observer of the pictures.

    Returns:
        The part's findings. A part that cannot be loaded, or fails while it computes, has one finding.

    Raises:
        DeviceUnavailable: this machine does not have the device.
        ModelSetInvalid: an option is invalid.
    """
    try:
        return _TRIALS[part.kind](WORLDS[model_set.trial], part, config, device, progress)
    except (CheckpointInvalid, MemoryTooSmall) as error:
        return [_stopped(part, "loads", error)]
    except ContextTooSmall as error:
        return [_stopped(part, "runs", error)]
    except EngineFailed as error:
        reasons = ["the weights are damaged", "half precision overflows on this device (try --device cpu)"]
        return [_stopped(part, "runs", error, one_of(*reasons))]


def _stopped(part: ModelPart, name: str, error: MatirError, reason: str = "") -> TrialFinding:
    """Make the finding about a part whose trial was ended by `error`."""
    return TrialFinding(part.kind, name, TrialState.FAILED, reason=reason, fault=error)


def _try_proposer(
    world: TrialWorld, part: ModelPart, config: EngineConfig, device: str, progress: ProgressObserver
) -> list[TrialFinding]:
    return try_proposer(world, load_proposer(config, device), part.reference, progress)


def _try_encoder(
    world: TrialWorld, part: ModelPart, config: EngineConfig, device: str, progress: ProgressObserver
) -> list[TrialFinding]:
    if part.engine not in REGION_ENCODERS:
        seen = f"the engine {part.engine} encodes no regions; it serves as a baseline of matir eval alone"
        return [TrialFinding(part.kind, "regions", TrialState.UNKNOWN, seen)]
    regions, texts = load_region_encoder(config, device), load_text_encoder(config)
    return try_encoder(world, regions, texts, part.reference, progress)


def _try_judge(
    world: TrialWorld, part: ModelPart, config: EngineConfig, device: str, progress: ProgressObserver
) -> list[TrialFinding]:
    with closing(load_judge(config, device)) as judge:
        return try_judge(world, judge, part.reference, progress)


_TRIALS = {"proposer": _try_proposer, "encoder": _try_encoder, "judge": _try_judge}
