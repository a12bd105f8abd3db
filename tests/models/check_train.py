"""Tests of the training recipe as a real process, with a few steps per stage."""

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from matir_cli.engines.protocols import JudgePhoto
from matir_cli.engines.registry import load_judge, load_proposer, load_region_encoder, load_text_encoder
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import locate_part
from matir_cli.models.tiny import world
from matir_cli.records import EngineConfig, ModelIdentity

SCALE = "0.001"
"""Factor for the recipe's steps: one to four remain per stage."""


def train(out: Path, *words: str) -> str:
    """Run the recipe; return its log."""
    done = subprocess.run(
        [sys.executable, "-m", "matir_cli.models.tiny.train", *words, "--out", str(out), "--threads", "2"],
        capture_output=True,
        check=True,
    )
    return done.stderr.decode()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    log = train(out, "all", "--steps-scale", SCALE)
    for stage in ("sam2", "alpha_clip", "qwen_vision", "qwen_singles", "qwen_relations", "qwen_boxes"):
        assert f"{stage} 1/" in log or f"{stage} 2/" in log, log
    return out


def configured(part: str, folder: Path) -> EngineConfig:
    """The part of the shipped set, with its files taken from `folder`."""
    shipped = load_model_set("tiny").part(part)
    files = {file.role: folder / Path(file.source.address).name for file in shipped.files}
    return EngineConfig(shipped.engine, shipped.options, files, ModelIdentity(part, "0" * 64))


def test_the_engines_load_the_trained_files(trained: Path) -> None:
    picture = world.picture(world.SPLITS["validation"][0])
    proposer = load_proposer(configured("proposer", trained), "cpu")
    regions = [region.rle for region in proposer.propose(picture.image)]
    encoder = load_region_encoder(configured("encoder", trained), "cpu")
    vectors = encoder.encode(picture.image, regions)
    query = load_text_encoder(configured("encoder", trained)).encode("red house")
    assert vectors.shape == (len(regions), len(query.vector))
    assert np.isfinite(vectors @ query.vector).all()
    judge = load_judge(configured("judge", trained), "cpu")
    verdicts = judge.rerank(JudgePhoto(1, picture.image), ["red house", "dog led by rope"])
    judge.close()
    assert all(verdict is not None and np.isfinite(verdict.margin) for verdict in verdicts)
    assert verdicts[0] != verdicts[1]


def test_a_finished_training_is_not_done_again(trained: Path) -> None:
    before = (trained / "sam2.pt").read_bytes()
    log = train(trained, "sam2", "--steps-scale", SCALE)
    assert "s/step" not in log
    assert (trained / "sam2.pt").read_bytes() == before


def test_the_judge_is_trained_further_from_the_weights_in_the_package(tmp_path: Path) -> None:
    log = train(tmp_path, "qwen_vl_further", "--steps-scale", "0.003")
    assert "qwen_together 1/1 " in log
    shipped = locate_part(load_model_set("tiny"), "judge").files
    for role, name in (("model", "qwen_vl.gguf"), ("projector", "qwen_vl_projector.gguf")):
        before, after = (read_tensors(path) for path in (shipped[role], tmp_path / name))
        assert before.keys() == after.keys()
        changes = [float(abs(before[each] - after[each]).max()) for each in before]
        assert 0 < max(changes) < 0.01  # one small step, half of it kept


def read_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """The tensors of a GGUF file by name."""
    return {each.name: each.data.astype(np.float32) for each in gguf.GGUFReader(path).tensors}
