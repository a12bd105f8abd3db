"""Small random Qwen-VL models by transformers, and its logits as reference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from matir_cli.engines.qwen_vl.family import QwenFamily
from matir_cli.engines.qwen_vl.options import GROUND, HEAD, RERANK, TAIL, QwenVlOptions
from matir_cli.engines.registry import JUDGE_OPTIONS
from matir_cli.models.tiny.gguf_writer import IMAGE_MEAN, IMAGE_STD, write_gguf
from matir_cli.models.tiny.qwen_tokenizer import SPECIAL_TOKENS, build_tokenizer
from matir_cli.records import EngineConfig, FloatArray, ImageArray, ModelIdentity
from tests.support.clip_weights import byte_of_symbol

CORPUS = [
    HEAD,
    TAIL,
    f"{RERANK}a striped red house left of a dog led by rope",
    f"{GROUND}the small green car behind a tree",
    '```json\n[\n\t{"bbox_2d": [12, 345, 67, 890], "label": "dog led by rope"}\n]\n```',
]
"""Texts that the tokenizer is trained on."""
BYTES = byte_of_symbol()
Precision = Literal["f16", "f32"]


@dataclass(frozen=True)
class SmallQwen:
    """A model, its tokenizer, and the GGUF files written from them."""

    model: Any
    """A transformers model of the family; untyped, since the two families have no common class."""
    tokenizer: PreTrainedTokenizerFast
    text_path: Path
    """GGUF file of the text model."""
    projector_path: Path
    """GGUF file of the vision projector."""
    engine: str = "qwen_vl"
    """Name of the engine, which decides the family."""
    writer: Callable[..., None] = write_gguf
    """Writes the two files."""
    normalisation: tuple[Sequence[float], Sequence[float]] = (IMAGE_MEAN, IMAGE_STD)
    """Mean and standard deviation of the colours of pixels, which the family's processor removes."""

    @property
    def options(self) -> type[QwenVlOptions]:
        """Class of the engine's options."""
        return JUDGE_OPTIONS[self.engine]

    @property
    def family(self) -> QwenFamily:
        """Family of the model."""
        return self.options.FAMILY

    @property
    def pixels(self) -> dict[str, int]:
        """Bounds of the size in which the model sees photos: 4 to 256 tokens."""
        return {"min_pixels": 4 * self.family.factor**2, "max_pixels": 256 * self.family.factor**2}

    def config(self, **options: object) -> EngineConfig:
        """Return the configuration to load the judge with, on one thread."""
        files = {"model": self.text_path, "projector": self.projector_path}
        settings = {"threads": 1, **self.pixels, **options}
        return EngineConfig(self.engine, settings, files, ModelIdentity("small", "0"))

    def token_id(self, text: str) -> int:
        """Return the id of the token `text`."""
        return self.tokenizer.get_vocab()[text]

    def encode(self, text: str, *, plain: bool = False) -> list[int]:
        """Return the token ids of `text`; with `plain`, a marker in it is text, not a special token."""
        return list(self.tokenizer.encode(text, split_special_tokens=plain))

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that `token` stands for; none for the ids that pad the vocabulary."""
        if token >= len(self.tokenizer):
            return b""
        text = str(self.tokenizer.convert_ids_to_tokens(token))
        if text in SPECIAL_TOKENS:
            return text.encode()
        return bytes(BYTES[symbol] for symbol in text)

    def write(self, precision: Precision) -> None:
        """Write the GGUF files; to be repeated if the model changes."""
        self.writer(self.model, self.tokenizer, self.text_path, self.projector_path, precision=precision)

    def inputs(
        self, image: ImageArray, question: str, answer: list[int], max_pixels: int | None = None
    ) -> dict[str, torch.Tensor]:
        """Return transformers' inputs for the photo in its original size, the question and `answer`.

        `max_pixels` is as in `pixels` if it is not given.
        """
        mean, deviation = self.normalisation
        processor = Qwen2VLImageProcessorPil(
            min_pixels=self.pixels["min_pixels"],
            max_pixels=max_pixels or self.pixels["max_pixels"],
            patch_size=self.family.patch_side,
            image_mean=list(mean),
            image_std=list(deviation),
        )
        patches = processor(images=[Image.fromarray(image)], return_tensors="pt")
        pads = "<|image_pad|>" * (int(patches["image_grid_thw"].prod()) // 4)
        prefix = self.encode(f"{self.options.PROMPT_HEAD}<|vision_start|>{pads}<|vision_end|>")
        ids = torch.tensor([prefix + self.encode(question, plain=True) + self.encode(TAIL) + answer])
        pad = self.token_id("<|image_pad|>")
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == pad).int(),
            "pixel_values": patches["pixel_values"],
            "image_grid_thw": patches["image_grid_thw"],
        }

    def logits(
        self, image: ImageArray, question: str, answer: Sequence[int] = (), max_pixels: int | None = None
    ) -> FloatArray:
        """Return (vocabulary,) float32: transformers' logits for the token after `answer`."""
        with torch.no_grad():
            inputs = self.inputs(image, question, list(answer), max_pixels)
            logits: torch.Tensor = self.model(**inputs).logits
        return np.asarray(logits[0, -1].float().numpy())


def make_model(
    folder: Path, *, seed: int, precision: Precision = "f32", tied: bool = False, **text: int
) -> SmallQwen:
    """Create a model with random weights, larger than usual so that its answers depend on the question.

    Args:
        folder: folder to write the GGUF files into.
        seed: seed of the weights.
        precision: precision of the GGUF files.
        tied: use the token embeddings as output projection, too.
        text: changes to the configuration of the text model.
    """
    tokenizer = build_tokenizer(CORPUS, 400)
    ids = tokenizer.get_vocab()
    width = text.pop("hidden_size", 64)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + 4,
            "hidden_size": width,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000000.0,
                "mrope_section": [width // 8 - 2 * (width * 3 // 64), width * 3 // 64, width * 3 // 64],
            },
            **text,
        },
        vision_config={
            "depth": 4,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_heads": 4,
            "out_hidden_size": width,
            "fullatt_block_indexes": [1, 3],
            "window_size": 112,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=tied,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    randomise_qwen(model)
    small = SmallQwen(model, tokenizer, folder / "text.gguf", folder / "projector.gguf")
    small.write(precision)
    return small


def randomise_qwen(model: torch.nn.Module) -> None:
    """Give the model weights from torch's generator, larger than usual, and set it to evaluate."""
    model.train(False)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                inputs = 8 if "embed" in name and "proj" not in name else weight[0].numel()
                weight.normal_(0, 1.5 / inputs**0.5)
            else:
                centre = 1.0 if ("norm" in name or "ln_q" in name) and name.endswith("weight") else 0.0
                weight.normal_(centre, 0.1)


def photo(seed: int, height: int, width: int) -> ImageArray:
    """Return a seeded (height, width, 3) uint8 image: two waves and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(9, 29) + rng.uniform(0, 6)), np.cos(y / rng.uniform(7, 27))]
    planes = [127 + 120 * wave for wave in waves] + [np.full((height, width), rng.uniform(0, 255))]
    noisy = np.stack(planes, axis=-1) + rng.normal(0, 10, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)
