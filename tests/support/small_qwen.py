"""Small Qwen2.5-VL models made by transformers, and transformers' own answers to compare with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil
from transformers.convert_slow_tokenizer import bytes_to_unicode

from matir_cli.engines.qwen_vl.options import GROUND, HEAD, RERANK, TAIL
from matir_cli.models.tiny.gguf_writer import write_gguf
from matir_cli.models.tiny.qwen_tokenizer import SPECIAL_TOKENS, build_tokenizer
from matir_cli.records import EngineConfig, ImageArray, ModelIdentity

CORPUS = [
    HEAD,
    TAIL,
    f"{RERANK}a striped red house left of a dog led by rope",
    f"{GROUND}the small green car behind a tree",
    '```json\n[\n\t{"bbox_2d": [12, 345, 67, 890], "label": "dog led by rope"}\n]\n```',
]
BYTE_OF = {letter: byte for byte, letter in bytes_to_unicode().items()}
MIN_PIXELS, MAX_PIXELS = 4 * 28 * 28, 256 * 28 * 28


@dataclass(frozen=True)
class SmallQwen:
    """A model, its tokenizer, and the GGUF files written from them."""

    model: Qwen2_5_VLForConditionalGeneration
    tokenizer: object
    text_path: Path
    projector_path: Path

    def config(self, **options: object) -> EngineConfig:
        """What the judge is loaded from."""
        files = {"model": self.text_path, "projector": self.projector_path}
        settings = {"threads": 1, "max_pixels": MAX_PIXELS, **options}
        return EngineConfig("qwen_vl", settings, files, ModelIdentity("small", "0"))

    def bytes_of(self, token: int) -> bytes:
        """The bytes that `token` stands for; none for those that fill the vocabulary up."""
        if token >= len(self.tokenizer):
            return b""
        text = self.tokenizer.convert_ids_to_tokens(token)
        if text in SPECIAL_TOKENS:
            return text.encode()
        return bytes(BYTE_OF[letter] for letter in text)

    def write(self, precision: str) -> None:
        """Writes the GGUF files, again where the model has changed."""
        write_gguf(self.model, self.tokenizer, self.text_path, self.projector_path, precision=precision)

    def inputs(self, image: ImageArray, question: str, answer: list[int]) -> dict[str, torch.Tensor]:
        """What transformers needs to go on behind `answer`, from the photo as it is."""
        processor = Qwen2VLImageProcessorPil(min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
        seen = processor(images=[Image.fromarray(image)], return_tensors="pt")
        pads = "<|image_pad|>" * (int(seen["image_grid_thw"].prod()) // 4)
        before = self.tokenizer.encode(f"{HEAD}<|vision_start|>{pads}<|vision_end|>")
        # A marker within a question is text, not a marker.
        asked = self.tokenizer.encode(question, split_special_tokens=True)
        ids = torch.tensor([before + asked + self.tokenizer.encode(TAIL) + answer])
        pad = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == pad).int(),
            "pixel_values": seen["pixel_values"],
            "image_grid_thw": seen["image_grid_thw"],
        }

    def logits(self, image: ImageArray, question: str, answer: list[int] = []) -> NDArray[np.float32]:  # noqa: B006
        """(vocabulary,) float32: transformers' logits behind `answer`."""
        with torch.no_grad():
            return self.model(**self.inputs(image, question, answer)).logits[0, -1].float().numpy()


def make_model(
    folder: Path, *, seed: int, precision: str = "f32", tied: bool = False, **text: int
) -> SmallQwen:
    """A model with random weights, larger than usual so that its answers depend on what it is asked."""
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
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                inputs = 8 if "embed_tokens" in name else weight[0].numel()
                weight.normal_(0, 1.5 / inputs**0.5)
            else:
                weight.normal_(1.0 if "norm" in name or "ln_q" in name else 0.0, 0.1)
    small = SmallQwen(model, tokenizer, folder / "text.gguf", folder / "projector.gguf")
    small.write(precision)
    return small


def photo(seed: int, height: int, width: int) -> ImageArray:
    """A seeded picture: two waves and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(9, 29) + rng.uniform(0, 6)), np.cos(y / rng.uniform(7, 27))]
    planes = [127 + 120 * wave for wave in waves] + [np.full((height, width), rng.uniform(0, 255))]
    noisy = np.stack(planes, axis=-1) + rng.normal(0, 10, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)
