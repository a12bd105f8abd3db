"""Checks of the judge's two files and of memory, before llama.cpp loads them.

llama.cpp refuses most invalid files, but aborts the process for some (metadata that contradicts the
tensors), and when memory runs out while it computes.
"""

from pathlib import Path

from matir_cli.engines.llama_cpp.gguf_header import GgufHeader, read_gguf_header
from matir_cli.engines.memory import available_memory
from matir_cli.engines.qwen_vl.family import QwenFamily
from matir_cli.engines.qwen_vl.projector_rules import check_projector, count_vision_deepstack
from matir_cli.engines.qwen_vl.text_rules import TOKENS_KEY, check_text_model, count_text_deepstack
from matir_cli.errors import CheckpointInvalid, MemoryTooSmall

COMPUTE_BYTES = 256 * 1024**2
"""Approximate memory that llama.cpp computes with, apart from what grows with the photo or the context."""

PATCH_BYTES = 100 * 1024
"""Memory that a vision tower without windows takes per patch, together with its deepstack features: 392 MiB
were measured for 4,096 patches, with random weights of the widths of Qwen3-VL 8B."""


def check_files(model: Path, projector: Path, family: QwenFamily) -> None:
    """Check that the two files are a text model and a projector of `family` that fit together.

    Raises:
        CheckpointInvalid: one is not, or they do not fit; the reason names the file and the fault.
    """
    text, vision = read_gguf_header(model, [TOKENS_KEY]), read_gguf_header(projector)
    _check_architecture(model, text, family.architecture, f"the text model of {family.name}")
    _check_architecture(projector, vision, "clip", "a vision projector")
    kind = vision.text("clip.projector_type") or "of no known kind"
    if kind != family.projector:
        raise CheckpointInvalid(
            projector, f"a projector for {family.name} is needed, this one is {kind[:40]}"
        )
    check_text_model(model, text, family)
    check_projector(projector, vision, family)
    width = text.number(f"{family.architecture}.embedding_length")
    projected = vision.number("clip.vision.projection_dim")
    if width != projected:
        reason = f"its vectors have length {projected}, {model.name} needs {width}: of another model size"
        raise CheckpointInvalid(projector, reason)
    layers, blocks = count_text_deepstack(text, family), count_vision_deepstack(vision)
    if layers != blocks:
        reason = f"it gives features of {blocks} inner blocks, {model.name} needs {layers}"
        raise CheckpointInvalid(projector, f"{reason}: of another model size")


def _check_architecture(path: Path, header: GgufHeader, expected: str, role: str) -> None:
    """Check that the file, needed as `role`, has the architecture `expected`."""
    found = header.text("general.architecture")[:40]
    if found != expected:
        raise CheckpointInvalid(
            path, f"{role} (architecture {expected}) is needed, this is {found or 'none'}"
        )


def check_memory(model: Path, projector: Path, family: QwenFamily, context_bytes: int, patches: int) -> None:
    """Check that the files, the context and a photo of `patches` patches fit into the available memory.

    llama.cpp maps the files, so without enough memory it would still start, and read them from disk over
    and over.

    Raises:
        MemoryTooSmall: they do not fit.
    """
    # The windows of a vision tower are masked with a square matrix, in float32 and in float16.
    photo = patches**2 * 6 if family.windowed else patches * PATCH_BYTES
    work = context_bytes + photo + COMPUTE_BYTES
    needed = model.stat().st_size + projector.stat().st_size + work
    available = available_memory()
    if needed > available:
        raise MemoryTooSmall(model, needed, available)
