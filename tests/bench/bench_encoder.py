"""Bench of region and text encoder: agreement and time beside the plain way.

    python -m tests.bench.bench_encoder [--quick] [--device cpu|cuda] [--regions 50] [--rounds 5]

Random weights at full size in the official formats: one photo through a ViT-L/14, the regions of one
photo through a ViT-B/16, and a query in seven prompts through the text tower of ViT-L/14. With
--quick, a small tower stands for each.
"""

import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import resize
from transformers import CLIPTextConfig, CLIPVisionConfig

from matir_cli import masks
from matir_cli.engines.clip.alpha_encoder import load_alpha_clip_encoder
from matir_cli.engines.clip.options import SEVEN_PROMPTS
from matir_cli.engines.clip.text_encoder import load_clip_text_encoder
from matir_cli.records import FloatArray, ImageArray, Rle
from tests.bench.measuring import (
    BenchParser,
    Timings,
    print_columns,
    print_heading,
    print_row,
    time_process,
    time_rounds,
)
from tests.support.clip_weights import (
    VISION_B16,
    VISION_L14,
    alpha_clip_config,
    normalised,
    plain_tower,
    random_text,
    random_vision,
    reference_tokenizer,
    save_text,
    save_vocabulary,
    text_config,
    to_openai,
)

HEIGHT, WIDTH = 768, 1024
QUERY = "dog led by rope"

ONE_QUERY = """
import sys
from pathlib import Path
from matir_cli.engines.clip.text_encoder import load_clip_text_encoder
from matir_cli.records import EngineConfig, ModelIdentity
files = {"text": Path(sys.argv[1]), "vocabulary": Path(sys.argv[2])}
config = EngineConfig("alpha_clip", {}, files, ModelIdentity("", ""))
load_clip_text_encoder(config).encode(sys.argv[3])
"""

SMALL_VISION = CLIPVisionConfig(
    hidden_size=64,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=1,
    image_size=32,
    patch_size=8,
    projection_dim=32,
)


@dataclass(frozen=True, slots=True)
class Towers:
    """The sizes of the three towers measured."""

    photo: CLIPVisionConfig
    """Encodes whole photos."""
    regions: CLIPVisionConfig
    """Encodes regions."""
    text: CLIPTextConfig
    name: str
    """The sizes in words."""


@dataclass(frozen=True, slots=True)
class AlphaClip:
    """An Alpha-CLIP visual tower as a state dict under upstream's names."""

    state: Mapping[str, Tensor]
    heads: int

    @property
    def side(self) -> int:
        """Side of the tower's square input, pixels."""
        grid = math.isqrt(len(self.state["positional_embedding"]) - 1)
        return grid * int(self.state["conv1.weight"].shape[-1])

    def to(self, device: str) -> "AlphaClip":
        """The tower on `device`: in float16 on CUDA, as upstream runs it, else in float32."""
        dtype = torch.float16 if device == "cuda" else torch.float32
        return AlphaClip({name: value.to(device, dtype) for name, value in self.state.items()}, self.heads)

    @torch.inference_mode()
    def encode_one_by_one(self, image: ImageArray, rles: Sequence[Rle]) -> Tensor:
        """(len(rles), d) vectors: upstream's way, the whole tower once per region of the squashed photo."""
        like = self.state["conv1.weight"]
        square = Image.fromarray(image).resize((self.side, self.side), Image.Resampling.BICUBIC)
        rgb = normalised(square).to(like.device, like.dtype)
        vectors = []
        for rle in rles:
            mask = torch.from_numpy(masks.decode(rle)).float()[None, None]
            alpha = (resize(mask, [self.side, self.side], antialias=True) - 0.5) / 0.26
            alpha = alpha.to(like.device, like.dtype)
            vectors.append(plain_tower(self.state, self.heads, rgb, alpha)[0].cpu())
        return torch.stack(vectors)


def random_alpha_clip(vision: CLIPVisionConfig) -> AlphaClip:
    """A tower with seeded weights and an alpha channel that matters."""
    state = to_openai(random_vision(vision, 1))
    generator = torch.Generator().manual_seed(2)
    state["conv1_alpha.weight"] = torch.randn(state["conv1_alpha.weight"].shape, generator=generator) * 0.1
    return AlphaClip(state, vision.num_attention_heads)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = BenchParser(__doc__, arguments)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_size("--regions", 50, 3, "regions of one photo")
    parser.add_size("--rounds", 5, 1, "runs of each way, after one that warms up")
    options = parser.options()
    towers = (
        Towers(SMALL_VISION, SMALL_VISION, text_config(64, 2, 1, 32), "small towers")
        if parser.quick
        else Towers(VISION_L14, VISION_B16, text_config(768, 12, 12, 768), "ViT-L/14, ViT-B/16 for regions")
    )
    print_heading(
        f"one photo of {WIDTH} x {HEIGHT}, {options.regions} elliptic regions, one query; {towers.name}, "
        "random weights",
        "The work is: it depends on the sizes of the towers and of the photo, not on weights or content.",
        f"{options.device}, {torch.get_num_threads()} threads",
        f"torch {torch.__version__}",
    )
    print_columns("work", "plain way", "here", "here / plain", "largest difference of a vector's component")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compare_photo(folder, towers.photo, options.device, options.rounds)
        compare_regions(folder, towers.regions, options.regions, options.device, options.rounds)
        compare_query(folder, towers.text, options.rounds)


@torch.inference_mode()
def compare_photo(folder: Path, vision: CLIPVisionConfig, device: str, rounds: int) -> None:
    """One whole photo, `conv1_alpha` zero, beside transformers' tower."""
    reference = random_vision(vision, 0)
    state = to_openai(reference)
    side = AlphaClip(state, vision.num_attention_heads).side
    torch.save(state, folder / "visual.pth")
    ours = load_alpha_clip_encoder(
        alpha_clip_config({"transform": "squash"}, visual=folder / "visual.pth"), device
    )
    nn.Module.to(reference, torch.device(device))
    image, whole = photo(0), masks.whole(HEIGHT, WIDTH)

    def plain() -> FloatArray:
        square = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        return unit(reference(normalised(square).to(device)).image_embeds)

    plain_time, expected = time_rounds(plain, rounds)
    our_time, vectors = time_rounds(lambda: ours.encode(image, [whole]), rounds)
    difference = largest_difference(expected, vectors)
    print_comparison("a whole photo, beside transformers", plain_time, our_time, difference)


def compare_regions(folder: Path, vision: CLIPVisionConfig, count: int, device: str, rounds: int) -> None:
    """The regions of one photo in batches, beside upstream's way, one after the other."""
    tower = random_alpha_clip(vision)
    torch.save(tower.state, folder / "visual.pth")
    ours = load_alpha_clip_encoder(
        alpha_clip_config({"transform": "squash"}, visual=folder / "visual.pth"), device
    )
    tower = tower.to(device)
    image, rles = photo(1), [ellipse(seed) for seed in range(count)]
    plain_time, expected = time_rounds(lambda: unit(tower.encode_one_by_one(image, rles)), rounds)
    our_time, vectors = time_rounds(lambda: ours.encode(image, rles), rounds)
    difference = largest_difference(expected, vectors)
    print_comparison(f"{count} regions of a photo, beside one by one", plain_time, our_time, difference)


@torch.inference_mode()
def compare_query(folder: Path, text: CLIPTextConfig, rounds: int) -> None:
    """A query in seven prompts: warm beside transformers, and as a process beside `import torch`."""
    model = random_text(text, 3)
    save_text(model, folder / "text.safetensors")
    save_vocabulary(folder / "tokenizer.json")
    ids = reference_tokenizer().SimpleTokenizer()([prompt.format(QUERY) for prompt in SEVEN_PROMPTS])
    ids = ids[:, : int(ids.argmax(dim=1).max()) + 1]
    encoder = load_clip_text_encoder(
        alpha_clip_config(text=folder / "text.safetensors", vocabulary=folder / "tokenizer.json")
    )
    plain_time, vectors = time_rounds(lambda: unit(model(ids).text_embeds), rounds)
    mean = vectors.mean(axis=0, keepdims=True)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    our_time, vector = time_rounds(lambda: encoder.encode(QUERY).vector[None], rounds)
    difference = largest_difference(expected, vector)
    print_comparison("a query in 7 prompts, beside transformers", plain_time, our_time, difference)

    files = [str(folder / "text.safetensors"), str(folder / "tokenizer.json")]
    torch_import = time_process([sys.executable, "-c", "import torch"], rounds)
    one_query = time_process([sys.executable, "-c", ONE_QUERY, *files, QUERY], rounds)
    print_comparison("a process that encodes a query, beside `import torch`", torch_import, one_query)


def photo(seed: int) -> ImageArray:
    """(HEIGHT, WIDTH, 3) uint8: coarse blotches."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def ellipse(seed: int) -> Rle:
    """A random region of the photo."""
    rng = np.random.default_rng(seed)
    (y, x), (ry, rx) = rng.uniform(0.2, 0.8, 2), rng.uniform(0.05, 0.4, 2)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return masks.encode(((rows / HEIGHT - y) / ry) ** 2 + ((columns / WIDTH - x) / rx) ** 2 < 1)


def unit(vectors: Tensor) -> FloatArray:
    """The rows scaled to length 1, float32."""
    vectors = vectors.float().cpu()
    return np.asarray((vectors / vectors.norm(dim=1, keepdim=True)).numpy(), dtype=np.float32)


def largest_difference(expected: FloatArray, vectors: FloatArray) -> str:
    """The largest difference of a component, for the table."""
    return f"{np.abs(expected - vectors).max():.1e}"


def print_comparison(work: str, plain: Timings, ours: Timings, difference: str = "") -> None:
    """Print one row of the table."""
    print_row(work, plain, ours, f"{ours.median / plain.median:.2f}x", difference)


if __name__ == "__main__":
    main()
