"""The tiny CLIP without masks, and the comparison of ways to encode regions, at their smallest."""

from pathlib import Path

import numpy as np
import pytest
import torch

from matir_cli.models.tiny import recipe, train_clip
from matir_cli.models.tiny.grammar import fulfils


def test_batches_show_what_their_phrases_say() -> None:
    images, queries, truth = train_clip.batch_of(0, 4, torch.device("cpu"))
    assert len(images) == len(queries) == len(truth)
    assert bool((truth.diagonal() == 1).all()), "each phrase is true of the image that it was made for"
    assert 0 < truth.mean() < 0.5


def test_crops_hold_their_thing() -> None:
    (picture,) = recipe.pictures(1, 1)
    rng = np.random.default_rng(0)
    for thing in picture.things:
        part = train_clip.crop_around(picture, thing.id, rng)
        assert part is not None
        assert (part.owner == thing.id).any()
        assert part.image.shape[:2] == part.owner.shape
        assert part.owner.size <= picture.owner.size


def test_training_and_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_clip, "PICTURES", 2)
    (path,) = train_clip.train(tmp_path, 0.002, torch.device("cpu"))
    assert path.stat().st_size > 1e6
    results = train_clip.compare(tmp_path, 3)
    assert {"Alpha-CLIP", "crops of boxes", "region tokens, crops = 2, all patches"} <= results.keys()
    for precisions, seconds in results.values():
        assert precisions
        assert all(0 < value <= 1 for value in precisions.values())
        assert seconds > 0
    pictures = list(recipe.pictures(0, 3, "validation"))
    queries, truth = train_clip.questions_of(pictures)
    assert truth.shape == (len(queries), sum(len(picture.things) for picture in pictures))
    assert truth[0, : len(pictures[0].things)].sum() == len(fulfils(queries[0], pictures[0]))
