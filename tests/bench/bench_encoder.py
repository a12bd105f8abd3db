"""Region and text encoder: agreement with transformers, and time beside the plain way, in one run.

    python -m tests.bench.bench_encoder [--model b16|l14] [--regions 50] [--device cpu|cuda] [--rounds 3]

Random weights at full size in the official formats; prints a Markdown table.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import resize

from matir_cli import masks
from matir_cli.engines.clip.alpha_encoder import load_alpha_clip_encoder
from matir_cli.engines.clip.options import SEVEN_PROMPTS
from matir_cli.engines.clip.text_encoder import load_clip_text_encoder
from matir_cli.records import FloatArray, ImageArray, Rle
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

ONE_SHOT = """
import sys
from pathlib import Path
from matir_cli.engines.clip.text_encoder import load_clip_text_encoder
from matir_cli.records import EngineConfig, ModelIdentity
files = {"text": Path(sys.argv[1]), "vocabulary": Path(sys.argv[2])}
encoder = load_clip_text_encoder(EngineConfig("alpha_clip", {}, files, ModelIdentity("", "")))
encoder.encode(sys.argv[3])
"""

Result = TypeVar("Result")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("b16", "l14"), default="b16", help="tower of the 50 regions")
    parser.add_argument("--regions", type=int, default=50)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3, help="the best round counts")
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {given.device}, torch {torch.__version__}\n")
    print("| what | plain | ours | ours / plain | largest difference |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image_parity(folder, given.device, given.rounds)
        regions(folder, given.model, given.regions, given.device, given.rounds)
        text(folder, given.rounds)


@torch.inference_mode()
def image_parity(folder: Path, device: str, rounds: int) -> None:
    """One photo, `conv1_alpha` zero: transformers' ViT-L/14 and ours."""
    reference = random_vision(VISION_L14, 0)
    torch.save(to_openai(reference), folder / "visual.pth")
    reference.to(device)
    ours = load_alpha_clip_encoder(
        alpha_clip_config({"transform": "squash"}, visual=folder / "visual.pth"), device
    )
    image, whole = photo(0), masks.whole(HEIGHT, WIDTH)
    pixels = normalised(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)).to(device)
    plain_time, expected = best(lambda: unit(reference(pixels).image_embeds), rounds)
    our_time, found = best(lambda: ours.encode(image, [whole]), rounds)
    row("a photo, ViT-L/14, transformers", plain_time, our_time, expected, found)


@torch.inference_mode()
def regions(folder: Path, model: str, count: int, device: str, rounds: int) -> None:
    """The regions of one photo: upstream's way, one at a time, and ours, batched."""
    state = to_openai(random_vision({"b16": VISION_B16, "l14": VISION_L14}[model], 1))
    generator = torch.Generator().manual_seed(2)
    state["conv1_alpha.weight"] = torch.randn(state["conv1_alpha.weight"].shape, generator=generator) * 0.1
    torch.save(state, folder / "visual.pth")
    ours = load_alpha_clip_encoder(
        alpha_clip_config({"transform": "squash"}, visual=folder / "visual.pth"), device
    )
    dtype = torch.float16 if device == "cuda" else torch.float32
    state = {name: value.to(device, dtype) for name, value in state.items()}
    heads = len(state["class_embedding"]) // 64
    image, rles = photo(1), [ellipse(seed) for seed in range(count)]

    def one_region(rle: Rle) -> Tensor:
        rgb = normalised(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC))
        alpha = resize(torch.from_numpy(masks.decode(rle)).float()[None, None], [224, 224], antialias=True)
        alpha = (alpha - 0.5) / 0.26
        return plain_tower(state, heads, rgb.to(device, dtype), alpha.to(device, dtype))[0].cpu()

    plain_time, expected = best(lambda: unit(torch.stack([one_region(rle) for rle in rles])), rounds)
    our_time, found = best(lambda: ours.encode(image, rles), rounds)
    row(f"{count} regions of a photo, {model}, one at a time", plain_time, our_time, expected, found)


@torch.inference_mode()
def text(folder: Path, rounds: int) -> None:
    """A query with seven prompts, ViT-L/14: warm beside transformers, and a process beside `import torch`."""
    model = random_text(text_config(768, 12, 12, 768), 3)
    save_text(model, folder / "text.safetensors")
    save_vocabulary(folder / "tokenizer.json")
    ids = reference_tokenizer().SimpleTokenizer()([prompt.format(QUERY) for prompt in SEVEN_PROMPTS])
    ids = ids[:, : int(ids.argmax(dim=1).max()) + 1]
    encoder = load_clip_text_encoder(
        alpha_clip_config(text=folder / "text.safetensors", vocabulary=folder / "tokenizer.json")
    )
    plain_time, vectors = best(lambda: unit(model(ids).text_embeds), rounds)
    mean = vectors.mean(axis=0, keepdims=True)
    our_time, found = best(lambda: encoder.encode(QUERY).vector[None], rounds)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    row("a query, 7 prompts, ViT-L/14, transformers", plain_time, our_time, expected, found)

    files = [str(folder / "text.safetensors"), str(folder / "tokenizer.json")]
    torch_time, _ = best(lambda: process("import torch"), rounds)
    process_time, _ = best(lambda: process(ONE_SHOT, *files, QUERY), rounds)
    row("a process: start, load, encode a query; `import torch` alone", torch_time, process_time)


def photo(seed: int) -> ImageArray:
    """Coarse blotches, 768 x 1024."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def ellipse(seed: int) -> Rle:
    """A random region of the photo."""
    rng = np.random.default_rng(seed)
    (y, x), (ry, rx) = rng.uniform(0.2, 0.8, 2), rng.uniform(0.05, 0.4, 2)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return masks.encode(((rows / HEIGHT - y) / ry) ** 2 + ((columns / WIDTH - x) / rx) ** 2 < 1)


def unit(vectors: Tensor) -> FloatArray:
    """Rows at length 1, float32."""
    vectors = vectors.float().cpu()
    return (vectors / vectors.norm(dim=1, keepdim=True)).numpy()


def best(measured: Callable[[], Result], rounds: int) -> tuple[float, Result]:
    """Seconds of the fastest of `rounds` calls after one to warm up, and a result."""
    result = measured()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        result = measured()
        times.append(time.perf_counter() - began)
    return min(times), result


def process(program: str, *arguments: str) -> None:
    """Run a Python program to its end."""
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)


def row(what: str, plain: float, ours: float, *vectors: Sequence[FloatArray] | FloatArray) -> None:
    """A line of the table."""
    difference = f"{np.abs(np.subtract(*vectors)).max():.1e}" if vectors else ""
    print(f"| {what} | {plain:.3f} s | {ours:.3f} s | {ours / plain:.2f}x | {difference} |", flush=True)


if __name__ == "__main__":
    main()
