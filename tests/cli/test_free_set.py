"""A set with SigLIP 2's formats from end to end: photos indexed, and found by a query that is not English."""

import hashlib
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matir_cli.cli.indexing import open_for_indexing
from matir_cli.engines.registry import load_region_encoder, load_text_encoder
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.outcomes import Added
from matir_cli.indexing.pipeline import add_photos
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.weights import locate_files
from tests.support.pictures import save_scenes
from tests.support.process import matir, records
from tests.support.siglip_weights import random_siglip, random_strings, save_gemma_tokenizer, save_siglip

TOML = """
name = "free"
description = "the tiny proposer and a random SigLIP 2"

[encoder]
name = "siglip2_random"
engine = "region_tokens"
licence = "Apache-2.0"
options = { heads = 3, text_heads = 3 }
files.checkpoint = { path = "model.safetensors" }
files.vocabulary = { path = "tokenizer.json" }
"""

QUERY = "perro con correa"


@pytest.fixture(scope="module")
def free_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TOML of the set."""
    folder = tmp_path_factory.mktemp("free")
    save_siglip(random_siglip(3), folder / "model.safetensors")
    save_gemma_tokenizer(folder, random_strings(300, 1))
    tiny = Path(str(files("matir_cli.models")))
    shutil.copy(tiny / "tiny" / "sam2.pt", folder / "sam2.pt")
    proposer = (tiny / "tiny.toml").read_text().partition("[proposer]")[2].partition("[encoder]")[0]
    (folder / "set.toml").write_text(f"{TOML}\n[proposer]{proposer.replace('tiny/sam2.pt', 'sam2.pt')}")
    return folder / "set.toml"


def test_add_and_find(free_set: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "gallery.matir"
    save_scenes(tmp_path / "photos", a="red", b="blue", c="green")
    with open_for_indexing(gallery, str(free_set), "cpu") as (opened, models):
        outcomes = list(add_photos(opened, [tmp_path / "photos"], models, previews=False))
    assert [type(outcome) for outcome in outcomes] == [Added] * 3
    found = matir("find", QUERY, "--db", gallery, "--no-rerank", "--whole", "--jsonl")
    assert found.returncode == 0, found.stderr
    results = records(found)
    assert len(results) == 3

    config = locate_files(load_model_set(str(free_set)), "encoder")
    query = load_text_encoder(config).encode(QUERY).vector
    encoder = load_region_encoder(config, "cpu")
    with GalleryFile.open(gallery) as opened:
        for result in results:
            photo = opened.photo_with(hashlib.sha256(Path(result["path"]).read_bytes()).digest())
            assert photo is not None
            rles = [stored.region.rle for stored in opened.regions(photo)]
            image = np.asarray(Image.open(result["path"]).convert("RGB"))
            best = max(encoder.encode(image, rles) @ query)
            assert abs(best - result["stage1_score"]) < 5e-3
    scores = [result["score"] for result in results]
    assert scores == sorted(scores, reverse=True)
