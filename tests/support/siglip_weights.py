"""Random SigLIP 2 models in the official file formats, with a small tokenizer of Gemma's structure."""

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase, Replace
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from transformers import SiglipConfig, SiglipModel

from matir_cli.records import EngineConfig, ModelIdentity
from tests.support.clip_weights import randomise

VISION: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 112, "num_hidden_layers": 3, "num_attention_heads": 3,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 112, "num_hidden_layers": 3, "num_attention_heads": 3,
    "max_position_embeddings": 64, "projection_size": 48,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip

HEADS = {"heads": 3, "text_heads": 3}
"""Options of the engine for these sizes."""

SCRIPTS = {
    "Latin": "abcdefghijklmnopqrstuvwxyzäöüßñçéøæœłżİı",
    "Greek": "αβγδεζηθικλμνξοπρσςτυφχψωάέ",
    "Cyrillic": "абвгдежзийклмнопрстуфхцчшщъыьэюяёїґ",
    "Armenian": "աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆ",
    "Georgian": "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ",
    "Hebrew": "אבגדהוזחטיכלמנסעפצקרשתםןךףץ",
    "Arabic": "ابتثجحخدذرزسشصضطظعغفقكلمنهويءةى",
    "Devanagari": "अआइईउऊएऐओऔकखगघचछजझटठडढणतथदधनपफबभमयरलवशषसह्ािीुू",
    "Tamil": "அஆஇஈஉஊஎஏஐகஙசஞடணதநபமயரலவழளறனாிீு",
    "Thai": "กขคงจฉชซญดตถทธนบปผฝพฟภมยรลวศษสหอฮะาิีึืุู",
    "Hangul": "가나다라마바사아자차카타파하거너더러머버서어",
    "Han": "狗带绳子沙滩上的红色气球桌椅猫树山水人大小黑白",
    "Kana": "あいうえおかきくけこさしすせそたちつてとアイウエオカキクケコ",
}
"""Letters by script."""

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def random_strings(count: int, seed: int) -> list[str]:
    """Return `count` strings of words in all scripts by turns, some in capitals, with symbols and spaces."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    extras = [
        "",
        "",
        "",
        " 3",
        "!",
        ", ",
        "  ",
        " & ",
        "\n",
        "é",
        "\N{DOG FACE}",
        "\u0301",
        " <h1> ",
        "▁▁",
        "\t",
    ]
    strings = []
    for number in range(count):
        letters = list(SCRIPTS.values())[number % len(SCRIPTS)]
        words = ("".join(rng.choices(letters, k=rng.randint(1, 7))) for _ in range(rng.randint(1, 9)))
        text = " ".join(word.upper() if rng.random() < 0.2 else word for word in words)
        strings.append(text + rng.choice(extras) + rng.choice(extras) + rng.choice(letters))
    return strings


def save_gemma_tokenizer(
    folder: Path, corpus: Sequence[str], *, pairs: bool = True, size: int = 1200
) -> Path:
    """Train a small tokenizer on `corpus` and write it with the structure of Gemma's files.

    Args:
        folder: where `tokenizer.json` and `tokenizer_config.json` are written.
        corpus: texts; what they lack is encoded as bytes.
        size: tokens at most.
        pairs: whether merges are written as pairs, else as "left right" (both are found on the hub).

    Returns:
        The path of `tokenizer.json`.
    """
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    found = ["<h1>", "▁▁", "\n\n"]
    tokenizer = Tokenizer(BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))  # noqa: S106 - a token
    tokenizer.normalizer = Normalizers([Lowercase(), Replace(" ", "▁")])
    trainer = BpeTrainer(vocab_size=size, special_tokens=[*names, *found, *BYTES], show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    made = json.loads(tokenizer.to_str())
    kept = [token for token in made["added_tokens"] if token["content"] in {*names, *found}]
    made["added_tokens"] = [
        {**token, "special": token["content"] in names, "normalized": False} for token in kept
    ]
    made["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    made["pre_tokenizer"] = {
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
    }  # fmt: skip
    end = {"SpecialToken": {"id": "<eos>", "type_id": 0}}
    made["post_processor"] = {
        "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, end],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, end, {"Sequence": {"id": "B", "type_id": 0}}, end],
        "special_tokens": {"<eos>": {"id": "<eos>", "ids": [1], "tokens": ["<eos>"]}},
    }  # fmt: skip
    if not pairs:
        made["model"]["merges"] = [" ".join(merge) for merge in made["model"]["merges"]]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(made, ensure_ascii=False, indent=2), encoding="utf-8")
    settings = {
        "tokenizer_class": "GemmaTokenizer", "add_bos_token": False, "add_eos_token": True,
        "padding_side": "right", "pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>",
        "unk_token": "<unk>",
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in made["added_tokens"]
        },
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return path


def random_siglip(seed: int, vocabulary: int = 1200, **vision: int) -> SiglipModel:
    """Create a small SigLIP whose vectors differ between images and between texts."""
    config = SiglipConfig(text_config={**TEXT, "vocab_size": vocabulary}, vision_config={**VISION, **vision})
    model = SiglipModel(config)
    model.train(False)
    randomise(model, seed)
    return model


def save_siglip(model: nn.Module, path: Path) -> Path:
    """Write a model's weights as on the hub; return `path`."""
    state: dict[str, Tensor] = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, path, metadata={"format": "pt"})
    return path


def region_tokens_config(options: dict[str, object] | None = None, **files: Path) -> EngineConfig:
    """Return the configuration of an engine `region_tokens`."""
    return EngineConfig("region_tokens", options or {}, files, ModelIdentity("random", "0" * 64))


def siglip_pixels(squares: Tensor) -> Tensor:
    """Normalise (n, 3, side, side) RGB in 0..1 as transformers does for SigLIP."""
    return (squares - torch.full((3, 1, 1), 0.5)) / 0.5


def save_large_gemma_tokenizer(path: Path) -> None:
    """Write a `tokenizer.json` of Gemma's size: 256,000 tokens and 580,000 merges, of no language."""
    letters = [*"abcdefghijklmnopqrstuvwxyz", "▁"]
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    words = ["".join(word) for length in (2, 3, 4) for word in itertools.product(letters, repeat=length)]
    merges = [(word[:middle], word[middle:]) for word in words for middle in range(1, len(word))][:580_000]
    used = {*letters, *map("".join, merges)}
    others = [chr(code) for code in range(0x4E00, 0x4E00 + 256_000) if not 0xD800 <= code < 0xE000]
    tokens = [*names, *BYTES, *(word for word in (*letters, *words) if word in used), *others][:256_000]
    model = {
        "type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
        "vocab": {token: number for number, token in enumerate(tokens)}, "merges": merges,
    }  # fmt: skip
    added = [{"id": number, "content": name, "special": True} for number, name in enumerate(names)]
    path.write_text(json.dumps({"added_tokens": added, "model": model}, ensure_ascii=False, indent=2))
