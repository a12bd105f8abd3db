import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision.transforms.functional import resize
from transformers import CLIPImageProcessorPil

from matir_cli import masks
from matir_cli.engines.clip.alpha_encoder import (
    Transform,
    load_alpha_clip_encoder,
    place,
    square_alpha,
    square_rgb,
)
from matir_cli.engines.clip.alpha_tower import Architecture, VisualTower, load_tower
from matir_cli.errors import CheckpointInvalid, ModelSetInvalid
from matir_cli.records import FloatArray, ImageArray, MaskArray
from tests.support.clip_weights import (
    VISION_B16,
    VISION_SMALL,
    config,
    normalised,
    plain_tower,
    random_vision,
    to_openai,
)

SMALL_HEADS = {"heads": 3}
CPU = torch.device("cpu")

# A checkpoint of upstream, its first layer.
OFFICIAL_NAMES = {
    "class_embedding", "positional_embedding", "proj", "conv1.weight", "conv1_alpha.weight",
    "ln_pre.weight", "ln_pre.bias", "ln_post.weight", "ln_post.bias",
    *(
        f"transformer.resblocks.0.{part}.{kind}"
        for part in ("attn.in_proj", "attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
        for kind in ("weight", "bias")
    ),
}  # fmt: skip


def photo(height: int, width: int, seed: int) -> ImageArray:
    """Coarse colour blotches under fine noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-20, 21, (height, width, 3))
    return np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)


def blob(height: int, width: int, seed: int) -> MaskArray:
    """A random ellipse."""
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(0.2, 0.8, 2)
    ry, rx = rng.uniform(0.1, 0.4, 2)
    rows, columns = np.mgrid[:height, :width]
    return ((rows / height - y) / ry) ** 2 + ((columns / width - x) / rx) ** 2 < 1


def unit(vectors: Tensor) -> FloatArray:
    return (vectors / vectors.norm(dim=1, keepdim=True)).numpy()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint with a `conv1_alpha` that matters."""
    state = to_openai(random_vision(VISION_SMALL, 1))
    generator = torch.Generator().manual_seed(2)
    state["conv1_alpha.weight"] = torch.randn(state["conv1_alpha.weight"].shape, generator=generator) * 0.3
    path = tmp_path_factory.mktemp("small") / "visual.pth"
    torch.save(state, path)
    return path


# -- Parity --------------------------------------------------------------------------------


@torch.no_grad()
def test_vectors_equal_transformers_with_full_size_vit_b16(tmp_path: Path) -> None:
    """With `conv1_alpha` zero; the photos brought to 224 x 224 by PIL and by transformers' processor."""
    reference = random_vision(VISION_B16, 0)
    torch.save(to_openai(reference), tmp_path / "visual.pth")
    wide, tall, square = photo(150, 300, 1), photo(300, 200, 2), photo(260, 260, 3)
    letterboxed = Image.new("RGB", (224, 224))
    letterboxed.paste(Image.fromarray(wide).resize((224, 112), Image.Resampling.BICUBIC), (0, 56))
    squashed = Image.fromarray(tall).resize((224, 224), Image.Resampling.BICUBIC)
    processed = CLIPImageProcessorPil()(square, return_tensors="pt")["pixel_values"]
    pixels = torch.cat([normalised(letterboxed), normalised(squashed), processed])
    expected = unit(reference(pixels).image_embeds)
    assert np.max(np.triu(expected @ expected.T, 1)) < 0.9, "the reference hardly tells the photos apart"

    found = []
    for image, transform in ((wide, "letterbox"), (tall, "squash"), (square, "crop")):
        encoder = load_alpha_clip_encoder(
            config({"transform": transform}, visual=tmp_path / "visual.pth"), "cpu"
        )
        found.append(encoder.encode(image, [masks.encode(blob(*image.shape[:2], 4))])[0])
    assert encoder.dimensions == 512
    assert np.abs(np.stack(found) - expected).max() < 1e-4


def test_masks_act_as_upstream(small: Path) -> None:
    state, side = torch.load(small, weights_only=True), 40
    image = photo(60, 80, 5)
    shapes = [blob(60, 80, seed) for seed in range(5)] + [
        np.zeros((60, 80), np.bool_),
        np.ones((60, 80), np.bool_),
    ]
    square = Image.new("RGB", (side, side))
    square.paste(Image.fromarray(image).resize((40, 30), Image.Resampling.BICUBIC), (0, 5))
    rows = []
    for shape in shapes:
        alpha = torch.full((1, 1, side, side), float(shape.all()))
        alpha[:, :, 5:35] = resize(torch.from_numpy(shape).float()[None, None], [30, 40], antialias=True)
        rows.append(plain_tower(state, 3, normalised(square), (alpha - 0.5) / 0.26)[0])
    expected = unit(torch.stack(rows))
    apart = np.abs(expected[:, None] - expected[None]).max(axis=2) + np.eye(len(expected))
    assert apart.min() > 0.01, "the masks hardly matter"

    for batch_size in (1, 3, 64):
        encoder = load_alpha_clip_encoder(config({"heads": 3, "batch_size": batch_size}, visual=small), "cpu")
        found = encoder.encode(image, [masks.encode(shape) for shape in shapes])
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-5


def test_tower_learns(small: Path) -> None:
    """Gradients reach every weight, and a saved `state_dict()` is a checkpoint."""
    tower = load_tower(small, 3).requires_grad_(True)
    rgb, alpha = torch.randn(2, 3, 40, 40), torch.randn(2, 1, 40, 40)
    tower(rgb, alpha).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in tower.parameters())
    torch.save(VisualTower(tower.architecture).state_dict(), small.with_name("saved.pth"))
    assert load_tower(small.with_name("saved.pth"), 3).architecture == tower.architecture


def test_half_precision_stays_close(small: Path) -> None:
    image, rles = photo(40, 40, 6), [masks.encode(blob(40, 40, seed)) for seed in range(3)]
    exact, *rough = (
        load_alpha_clip_encoder(config({"heads": 3, "precision": precision}, visual=small), "cpu").encode(
            image, rles
        )
        for precision in ("float32", "float16", "bfloat16")
    )
    for vectors in rough:
        assert not np.array_equal(vectors, exact)
        assert np.sum(vectors * exact, axis=1).min() > 0.999


# -- Geometry ------------------------------------------------------------------------------


@given(st.sampled_from(("letterbox", "squash", "crop")), st.integers(1, 3000), st.integers(1, 3000))
def test_placement_lies_in_the_square(transform: Transform, height: int, width: int) -> None:
    at = place(transform, height, width, 224)
    assert min(at.height, at.width, at.top + 1, at.left + 1) >= 1
    assert at.top + at.height <= 224
    assert at.left + at.width <= 224
    assert max(at.height, at.width) == 224
    seen = (at.rows.stop - at.rows.start, at.columns.stop - at.columns.start)
    assert seen == (height, width) if transform != "crop" else seen == (min(height, width),) * 2
    if transform == "letterbox":
        assert abs(at.height * width - at.width * height) <= max(height, width)


@pytest.mark.parametrize("transform", ["letterbox", "squash", "crop"])
@pytest.mark.parametrize(("height", "width"), [(300, 500), (500, 310), (30, 17), (400, 400)])
def test_photo_and_mask_are_transformed_alike(transform: Transform, height: int, width: int) -> None:
    mask = blob(height, width, 7)
    image = np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * 255
    at = place(transform, height, width, 112)
    rgb = square_rgb(image, at, 112)
    alpha = square_alpha([masks.encode(mask)], at, 112, CPU)[0, 0].numpy()
    # Bicubic and bilinear differ along edges; a shift by one pixel would cost ten times as much.
    assert np.abs(rgb[0] - alpha).mean() < 0.01
    assert alpha.max() > 0.99


def test_only_the_whole_photo_covers_the_bars() -> None:
    at = place("letterbox", 20, 40, 40)
    almost = np.ones((20, 40), np.bool_)
    almost[0, 0] = False
    alpha = square_alpha([masks.encode(almost), masks.whole(20, 40)], at, 40, CPU)
    assert not alpha[0, 0, :10].any()
    assert alpha[1].min() == 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 900), (900, 2)])
@pytest.mark.parametrize("transform", ["letterbox", "squash", "crop"])
def test_extreme_photos(small: Path, height: int, width: int, transform: str) -> None:
    encoder = load_alpha_clip_encoder(config({"heads": 3, "transform": transform}, visual=small), "cpu")
    found = encoder.encode(photo(height, width, 8), [masks.whole(height, width)])
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_no_masks_and_wrong_masks(small: Path) -> None:
    encoder = load_alpha_clip_encoder(config(SMALL_HEADS, visual=small), "cpu")
    assert encoder.encode(photo(20, 30, 9), []).shape == (0, 24)
    with pytest.raises(ValueError, match="20 x 30"):
        encoder.encode(photo(20, 30, 9), [masks.whole(30, 20)])


def test_a_vector_of_length_zero_is_nan(small: Path, tmp_path: Path) -> None:
    state = torch.load(small, weights_only=True)
    torch.save({**state, "proj": torch.zeros_like(state["proj"])}, tmp_path / "zero.pth")
    encoder = load_alpha_clip_encoder(config(SMALL_HEADS, visual=tmp_path / "zero.pth"), "cpu")
    assert np.isnan(encoder.encode(photo(20, 30, 9), [masks.whole(20, 30)])).all()


# -- Checkpoints ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "patch", "grid", "layers", "dimensions"),
    [(768, 16, 14, 12, 512), (1024, 14, 16, 24, 768), (1024, 14, 24, 24, 768)],
)
def test_architecture_is_read_from_shapes(
    width: int, patch: int, grid: int, layers: int, dimensions: int
) -> None:
    """ViT-B/16, ViT-L/14 and ViT-L/14 at 336 pixels."""
    expected = Architecture(width, layers, width // 64, patch, grid, dimensions)
    with torch.device("meta"):
        state = VisualTower(expected).state_dict()
    assert Architecture.of(state, None) == expected
    assert expected.side == (336 if grid == 24 else 224)
    assert {name for name in state if ".resblocks." not in name or ".resblocks.0." in name} == OFFICIAL_NAMES


def test_other_containers_give_the_same_vectors(small: Path, tmp_path: Path) -> None:
    state = torch.load(small, weights_only=True)
    save_file(state, tmp_path / "visual.safetensors")
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "ddp.pth")
    image, rle = photo(40, 50, 10), masks.whole(40, 50)
    vectors = [
        load_alpha_clip_encoder(config(SMALL_HEADS, visual=path), "cpu").encode(image, [rle])
        for path in (small, tmp_path / "visual.safetensors", tmp_path / "ddp.pth")
    ]
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])


State = dict[str, Tensor]


def _without_alpha(state: State) -> object:
    del state["conv1_alpha.weight"]
    return state


def _with_lora(state: State) -> object:
    return {**state, "transformer.resblocks.0.mlp.c_fc.lora_A": torch.zeros(16, 48)}


def _repeated(state: State) -> object:
    return {**state, "proj": torch.zeros(1, 1).expand(48, 16000)}


def _narrow(state: State) -> object:
    return {**state, "transformer.resblocks.1.mlp.c_fc.weight": torch.zeros(100, 48)}


@pytest.mark.filterwarnings(
    "ignore:Validating sparse tensor invariants"
)  # of newer torch: that it takes long
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without_alpha, "no conv1_alpha.weight"),
        (_with_lora, "unexpected transformer.resblocks.0.mlp.c_fc.lora_A"),
        (_repeated, "claims more numbers"),
        (_narrow, "wrong shape or type of transformer.resblocks.1.mlp.c_fc.weight"),
        (lambda state: {**state, "positional_embedding": torch.zeros(27, 48)}, "27 positions"),
        (lambda state: {**state, "conv1.weight": torch.zeros(48)}, "unpack"),
        (lambda state: {**state, "ln_post.bias": torch.zeros(48, dtype=torch.int64)}, "ln_post.bias"),
        (lambda state: {**state, "proj": torch.zeros(48, 0)}, "dimensions 0"),
        (lambda _: {"text_projection": torch.zeros(8, 8)}, "no 'conv1.weight'"),
        (lambda state: {**state, "extra": "text"}, "names and tensors"),
        (lambda _: torch.zeros(3), "names and tensors"),
        (lambda state: {**state, "proj": torch.zeros(48, 24, device="meta")}, "names and tensors"),
        (lambda state: {**state, "proj": torch.zeros(48, 24).to_sparse()}, "names and tensors"),
        (lambda state: {name.upper(): value for name, value in state.items()}, "no 'conv1.weight'"),
    ],
)  # fmt: skip
def test_what_is_no_visual_tower_is_named(
    small: Path, tmp_path: Path, change: Callable[[State], object], reason: str
) -> None:
    torch.save(change(torch.load(small, weights_only=True)), tmp_path / "changed.pth")
    with pytest.raises(CheckpointInvalid, match=reason):
        load_alpha_clip_encoder(config(SMALL_HEADS, visual=tmp_path / "changed.pth"), "cpu")


def test_no_code_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"conv1.weight": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.pth", "plain.pth"):
        with pytest.raises(CheckpointInvalid):
            load_tower(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_does_not_unpack_to_more_than_its_size(small: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(small) as stored, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as packed:
        for member in stored.infolist():
            content = stored.read(member) + b"\0" * 10_000_000 * member.filename.endswith("data.pkl")
            packed.writestr(member.filename, content, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointInvalid, match="unpack"):
        load_tower(tmp_path / "bomb.pth")


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({str(n): ([1024], 0, 4096) for n in range(9)}, "claims more numbers"),
        ({"proj": ([-4, -4], 0, 64)}, r"proj has the shape \[-4, -4\]"),
        ({"proj": ([1] * 99 + [16], 0, 64)}, "proj has the shape"),
        ({"proj": ([1024], 4, 4100)}, "outside the file"),
        ({"proj": ([17], 0, 64)}, "too many or too few"),
    ],
)
def test_a_safetensors_file_cannot_claim_more_than_it_has(
    tmp_path: Path, entries: dict[str, tuple[list[int], int, int]], reason: str
) -> None:
    header = json.dumps(
        {
            name: {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
            for name, (shape, begin, end) in entries.items()
        }
    ).encode()
    path = tmp_path / "visual.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4096))
    with pytest.raises(CheckpointInvalid, match=reason):
        load_tower(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"<html>404</html>" * 50])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_something_else(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"visual{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointInvalid):
        load_tower(path)
    with pytest.raises(CheckpointInvalid, match="No such file"):
        load_tower(tmp_path / f"missing{suffix}")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_files_load_or_say_so(small: Path, data: st.DataObject) -> None:
    """Bytes changed in the pickle and in the directory of the archive, or the end cut off."""
    content = bytearray(small.read_bytes())
    where = st.one_of(st.integers(0, 6000), st.integers(len(content) - 6000, len(content) - 1))
    for at in data.draw(st.lists(where, min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    path = small.with_name("damaged.pth")
    path.write_bytes(content[: data.draw(st.sampled_from((None, -1, -100, len(content) // 2)))])
    try:
        load_tower(path, 3)
    except CheckpointInvalid:
        return


def test_options_are_checked(small: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="5 heads do not divide the width 48"):
        load_alpha_clip_encoder(config({"heads": 5}, visual=small), "cpu")
    for wrong in ({"transform": "zoom"}, {"batch_size": 0}, {"colour": 1}):
        with pytest.raises(ModelSetInvalid):
            load_alpha_clip_encoder(config(wrong, visual=small), "cpu")
    with pytest.raises(ModelSetInvalid, match="visual"):
        load_alpha_clip_encoder(config(), "cpu")
