"""SAM 2 networks: checkpoints, sound or damaged, and configurations."""

import pickle
import resource
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest
import sam2
import torch
from safetensors.torch import save_file
from sam2.build_sam import build_sam2
from sam2.modeling.sam2_base import SAM2Base

from matir_cli.engines.sam2.model import build_model, load_model
from matir_cli.engines.sam2.options import Architecture, PackagedConfig, Sam2Options
from matir_cli.engines.sam2.proposer import Sam2Proposer, load_sam2_proposer
from matir_cli.errors import CheckpointInvalid, ModelSetInvalid
from matir_cli.records import ImageArray
from tests.support.crafted_sam2 import SMALL_OPTIONS, small_config

# Upstream's predictor scripts its transforms, which newer torch warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")


class TestLoad:
    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_file_formats(self, model: SAM2Base, image: ImageArray, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"weights{suffix}"
        if suffix == ".pt":
            torch.save({"model": model.state_dict()}, path)
        else:
            save_file(model.state_dict(), path)
        loose = {"predicted_iou_threshold": 0.1, "stability_threshold": 0.1, "points_per_side": 4}
        regions = load_sam2_proposer(small_config(path, **loose), "cpu").propose(image)
        assert regions
        settings = msgspec.structs.replace(SMALL_OPTIONS, **loose)
        assert regions == Sam2Proposer(model, settings, "cpu").propose(image)

    def test_half_precision_file(self, model: SAM2Base, tmp_path: Path) -> None:
        path = tmp_path / "half.pt"
        torch.save({"model": {name: weight.half() for name, weight in model.state_dict().items()}}, path)
        loaded = load_model(SMALL_OPTIONS, path)
        assert {weight.dtype for weight in loaded.state_dict().values()} == {torch.float32}
        assert not loaded.training

    @pytest.mark.parametrize("name", get_args(PackagedConfig))
    def test_official_tensors(self, name: PackagedConfig) -> None:
        """Names and shapes are those of upstream's own builder, and so of the official checkpoints."""
        ours = build_model(Sam2Options(config=name))
        theirs = build_sam2(name, None, device="cpu")
        shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in (ours, theirs)]
        assert shapes[0] == shapes[1]
        assert ours.training
        assert vars(ours.sam_mask_decoder).keys() == vars(theirs.sam_mask_decoder).keys()

    def test_all_configs_are_packaged(self) -> None:
        packaged = Path(sam2.__file__).parent
        names = {
            str(path.relative_to(packaged).as_posix())
            for folder in ("sam2", "sam2.1")
            for path in (packaged / "configs" / folder).glob("*.yaml")
        }
        assert names == set(get_args(PackagedConfig))


class TestHostileArchitecture:
    """Numbers that a stranger's model set may hold; `SMALL_OPTIONS` is sound."""

    def test_nothing_is_allocated_before_shapes_are_compared(self, tmp_path: Path) -> None:
        # 200 GB of weights, if they were made.
        huge = Architecture(
            stages=(64, 64, 64, 64), embed_dim=4096, num_heads=1, global_att_blocks=(), d_model=1024
        )
        torch.save({"model": {"weight": torch.zeros(3)}}, tmp_path / "weights.pt")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(CheckpointInvalid, match="not the SAM 2 of the configuration"):
            load_model(Sam2Options(architecture=huge), tmp_path / "weights.pt")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 1 << 20, "KiB"

    @pytest.mark.parametrize(
        "architecture",
        [
            {"stages": [4096, 4096, 4096, 4096]},
            {"stages": [1, 1, 1, 1 << 70]},
            {"embed_dim": 100, "num_heads": 3},
            {"d_model": 24},
        ],
    )
    def test_numbers_out_of_bounds(self, tmp_path: Path, architecture: dict[str, object]) -> None:
        torch.save({"model": {"weight": torch.zeros(3)}}, tmp_path / "weights.pt")
        with pytest.raises(ModelSetInvalid):
            load_sam2_proposer(small_config(tmp_path / "weights.pt", architecture=architecture), "cpu")

    def test_no_weight_is_left_without_memory(self, model: SAM2Base, tmp_path: Path) -> None:
        torch.save({"model": model.state_dict()}, tmp_path / "weights.pt")
        loaded = load_model(SMALL_OPTIONS, tmp_path / "weights.pt")
        held = dict(loaded.named_parameters()) | dict(loaded.named_buffers())
        assert not [name for name, tensor in held.items() if tensor.is_meta or tensor.requires_grad]
        assert held.keys() >= loaded.state_dict().keys()
        for name, weight in model.state_dict().items():
            assert torch.equal(held[name], weight)


OTHER = "not the SAM 2 of the configuration"


class _Attack:
    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path("attacked"),)


class TestBadFiles:
    def refused(self, path: Path) -> str:
        with pytest.raises(CheckpointInvalid) as caught:
            load_sam2_proposer(small_config(path), "cpu")
        assert caught.value.path == path
        assert "\n" not in caught.value.reason
        return caught.value.reason

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    @pytest.mark.parametrize("content", [b"", b"PK", b"not a checkpoint" * 100, pickle.dumps({"model": {}})])
    def test_not_a_checkpoint(self, tmp_path: Path, suffix: str, content: bytes) -> None:
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(content)
        assert self.refused(path)

    def test_nothing_there(self, tmp_path: Path) -> None:
        assert "No such file" in self.refused(tmp_path / "absent.pt")
        assert self.refused(tmp_path / "absent.safetensors")
        assert self.refused(tmp_path)

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_half_a_file(self, model: SAM2Base, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"weights{suffix}"
        if suffix == ".pt":
            torch.save({"model": model.state_dict()}, path)
        else:
            save_file(model.state_dict(), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert self.refused(path)

    def test_damaged_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pt"
        torch.save({"model": {"weight": torch.zeros(3)}}, path)
        sound = path.read_bytes()
        random = np.random.default_rng(0)
        for _ in range(100):
            damaged = bytearray(sound)
            for place in random.integers(0, len(sound), 3):
                damaged[place] = random.integers(0, 256)
            path.write_bytes(damaged)
            assert self.refused(path)

    def test_code_is_not_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        torch.save({"model": _Attack()}, tmp_path / "weights.pt")
        assert "more than tensors" in self.refused(tmp_path / "weights.pt")
        assert not (tmp_path / "attacked").exists()

    @pytest.mark.parametrize(
        "content", [None, [1, 2], {}, {"model": 3}, {"model": {"a": 1}}, {"weight": torch.zeros(1)}]
    )
    def test_another_table(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "weights.pt")
        assert "model" in self.refused(tmp_path / "weights.pt")

    def test_another_model(self, model: SAM2Base, tmp_path: Path) -> None:
        path, sound = tmp_path / "weights.pt", model.state_dict()
        first, *_ = sorted(sound)

        torch.save({"model": {name: sound[name] for name in sound if name != first}}, path)
        assert self.refused(path) == f"{OTHER}: no {first}"
        torch.save({"model": {**sound, "head.weight": torch.zeros(1)}}, path)
        assert self.refused(path) == f"{OTHER}: unexpected head.weight"
        torch.save({"model": {**sound, first: torch.zeros(2, 7)}}, path)
        assert self.refused(path) == f"{OTHER}: wrong shape or type of {first}"
        torch.save({"model": {**sound, first: torch.full_like(sound[first], torch.nan)}}, path)
        assert self.refused(path) == f"{first} holds numbers that are not finite"
        torch.save({"model": {**sound, first: sound[first].int()}}, path)
        assert first in self.refused(path)
