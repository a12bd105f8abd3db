"""Options of the SAM 2 proposer: invalid ones are named, and the defaults are the paper's."""

from pathlib import Path

import pytest
import torch
from sam2.modeling.sam2_base import SAM2Base

from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.engines.sam2.proposer import load_sam2_proposer
from matir_cli.errors import ModelSetInvalid
from tests.support.crafted_sam2 import small_config


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"config": "/tmp/mine.yaml"}, "config"),  # noqa: S108 - it is not opened
            ({"config": "configs/sam2.1_training/sam2.1_hiera_b+_MOSE_finetune.yaml"}, "config"),
            ({"image_size": 250}, "image_size"),
            ({"image_size": 288, "architecture": {"window_spec": [16, 4, 8, 4]}}, "image_size"),
            ({"predicted_iou_threshold": 2}, "predicted_iou_threshold"),
            ({"points_per_batch": 0}, "points_per_batch"),
            ({"thresh": 1}, "thresh"),
            ({"architecture": {"_target_": "os.system"}}, "_target_"),
            ({"architecture": {"d_model": 100}}, "d_model"),
            ({"architecture": {"embed_dim": 33, "num_heads": 2}}, "embed_dim"),
            ({"architecture": {"global_att_blocks": [3]}}, "global_att_blocks"),
            ({"architecture": {"global_att_blocks": [99]}}, "global_att_blocks"),
            ({"architecture": {"window_spec": [8, 5, 8, 4]}}, "window_spec"),
        ],
    )
    def test_wrong(self, model: SAM2Base, tmp_path: Path, options: dict[str, object], named: str) -> None:
        torch.save({"model": model.state_dict()}, tmp_path / "weights.pt")
        with pytest.raises(ModelSetInvalid, match=named) as caught:
            load_sam2_proposer(small_config(tmp_path / "weights.pt", **options), "cpu")
        assert caught.value.source == "sam2"

    def test_defaults_are_the_papers(self) -> None:
        defaults = Sam2Options()
        assert defaults.config.endswith("sam2.1_hiera_l.yaml")
        assert (defaults.predicted_iou_threshold, defaults.nms_threshold) == (0.5, 0.7)
        assert (defaults.points_per_side, defaults.stability_threshold, defaults.stability_offset) == (
            32,
            0.95,
            1.0,
        )
