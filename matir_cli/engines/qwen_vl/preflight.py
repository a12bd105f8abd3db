"""Checks of the judge's two files and of memory, before llama.cpp loads them.

llama.cpp refuses most invalid files, but aborts the process for some (metadata that contradicts the
tensors), and when memory runs out while it computes.
"""

from pathlib import Path

from matir_cli.engines.llama_cpp.gguf_header import GgufHeader, read_gguf_header
from matir_cli.engines.memory import available_memory
from matir_cli.engines.qwen_vl.gguf_rules import TOKENS_KEY, check_projector, check_text_model
from matir_cli.errors import CheckpointInvalid, MemoryTooSmall

COMPUTE_BYTES = 256 * 1024**2
"""Approximate memory that llama.cpp computes with, apart from what grows with the photo or the context."""


def check_files(model: Path, projector: Path) -> None:
    """Check that the two files are a text model and a projector of Qwen2.5-VL that fit together.

    Raises:
        CheckpointInvalid: one is not, or they do not fit; the reason names the file and the fault.
    """
    text, vision = read_gguf_header(model, [TOKENS_KEY]), read_gguf_header(projector)
    _check_architecture(model, text, "qwen2vl", "the text model of Qwen2.5-VL")
    _check_architecture(projector, vision, "clip", "a vision projector")
    kind = vision.text("clip.projector_type") or "of no known kind"
    if kind != "qwen2.5vl_merger":
        raise CheckpointInvalid(projector, f"a projector for Qwen2.5-VL is needed, this one is {kind[:40]}")
    check_text_model(model, text)
    check_projector(projector, vision)
    width = text.number("qwen2vl.embedding_length")
    projected = vision.number("clip.vision.projection_dim")
    if width != projected:
        reason = f"its vectors have length {projected}, {model.name} needs {width}: of another model size"
        raise CheckpointInvalid(projector, reason)


def _check_architecture(path: Path, header: GgufHeader, expected: str, role: str) -> None:
    """Check that the file, needed as `role`, has the architecture `expected`."""
    found = header.text("general.architecture")[:40]
    if found != expected:
        raise CheckpointInvalid(
            path, f"{role} (architecture {expected}) is needed, this is {found or 'none'}"
        )


def check_memory(model: Path, projector: Path, context_bytes: int, patches: int) -> None:
    """Check that the files, the context and a photo of `patches` patches fit into the available memory.

    llama.cpp maps the files, so without enough memory it would still start, and read them from disk over
    and over.

    Raises:
        MemoryTooSmall: they do not fit.
    """
    # The windows of the vision tower are masked with a square matrix, in float32 and in float16.
    work = context_bytes + patches**2 * 6 + COMPUTE_BYTES
    needed = model.stat().st_size + projector.stat().st_size + work
    available = available_memory()
    if needed > available:
        raise MemoryTooSmall(model, needed, available)
