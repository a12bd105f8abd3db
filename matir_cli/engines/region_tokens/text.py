"""Text encoders for region tokens: the other tower of the same checkpoint."""

from pathlib import Path

from matir_cli.engines.clip.options import ClipOptions, model_file
from matir_cli.engines.clip.text_encoder import ClipTextEncoder
from matir_cli.engines.clip.tokenizer import load_tokenizer as load_clip_tokenizer
from matir_cli.engines.options import read_options
from matir_cli.engines.protocols import TextEncoder
from matir_cli.engines.region_tokens.options import RegionTokensOptions
from matir_cli.engines.siglip.text_encoder import SiglipTextEncoder
from matir_cli.engines.siglip.tokenizer import load_tokenizer as load_gemma_tokenizer
from matir_cli.engines.tensors.safetensors_mmap import MappedTensors, NamedTensors
from matir_cli.records import EngineConfig

_SIGLIP_ONLY = "vision_model.head.probe"
"""Name of a tensor that tells a SigLIP from a CLIP."""

_PLAIN_PROMPTS = ("{}",)


def holds_siglip(path: Path) -> bool:
    """Return True if the file at `path` is a .safetensors file of a SigLIP; only its header is read.

    Raises:
        CheckpointInvalid: the file is named .safetensors but is none.
    """
    return path.suffix == ".safetensors" and _SIGLIP_ONLY in MappedTensors(path)


def load_region_tokens_text_encoder(config: EngineConfig) -> TextEncoder:
    """Load a model set's text encoder from its files "checkpoint" and "vocabulary" (tokenizer.json).

    Raises:
        ModelSetInvalid: an option is invalid, or the model set does not name a file.
        CheckpointInvalid: a file is damaged or of the wrong kind.
    """
    options = read_options(config.options, RegionTokensOptions, config.engine)
    path, vocabulary = model_file(config, "checkpoint"), model_file(config, "vocabulary")
    if holds_siglip(path):
        prompts = options.prompts or _PLAIN_PROMPTS
        tokenizer = load_gemma_tokenizer(vocabulary)
        return SiglipTextEncoder(MappedTensors(path), tokenizer, options.text_heads, prompts)
    clip_options = ClipOptions(text_heads=options.text_heads)
    if options.prompts is not None:
        clip_options = ClipOptions(text_heads=options.text_heads, prompts=options.prompts)
    return ClipTextEncoder(_read_clip_text_tower(path), load_clip_tokenizer(vocabulary), clip_options)


def _read_clip_text_tower(path: Path) -> NamedTensors:
    """Map the text tower, or read it with torch if its format or its names need that."""
    if path.suffix == ".safetensors":
        mapped = MappedTensors(path)
        if "text_projection.weight" in mapped:
            return mapped
    # Imported here: it loads torch.
    from matir_cli.engines.clip.checkpoint import read_text_tower

    return read_text_tower(path)
