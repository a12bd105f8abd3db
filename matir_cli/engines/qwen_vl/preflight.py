"""Checks of the judge's two files and of memory, before llama.cpp loads them.

llama.cpp refuses most invalid files, but aborts the process for some (metadata that contradicts the
tensors), and when memory runs out while it computes.
"""

import contextlib
import os
from pathlib import Path

from matir_cli.engines.llama_cpp.gguf_header import GgufHeader, read_gguf_header
from matir_cli.engines.qwen_vl.boxes import FACTOR
from matir_cli.errors import CheckpointInvalid, MemoryTooSmall

COMPUTE_BYTES = 256 * 1024**2
"""Approximate memory that llama.cpp computes with, apart from what grows with the photo or the context."""


def check_files(model: Path, projector: Path) -> None:
    """Check that the two files are a text model and a projector of Qwen2.5-VL that fit together.

    Raises:
        CheckpointInvalid: one is not, or they do not fit; the reason names the file and the fault.
    """
    text, vision = read_gguf_header(model), read_gguf_header(projector)
    _check_architecture(model, text, "qwen2vl", "the text model of Qwen2.5-VL")
    _check_architecture(projector, vision, "clip", "a vision projector")
    kind = vision.texts.get("clip.projector_type", "of no known kind")
    if not vision.numbers.get("clip.has_vision_encoder") or kind != "qwen2.5vl_merger":
        raise CheckpointInvalid(projector, f"a projector for Qwen2.5-VL is needed, this one is {kind}")
    if not text.numbers.get("qwen2vl.block_count"):
        raise CheckpointInvalid(model, "a text model without layers")
    _check_projector(projector, vision)
    width = text.numbers.get("qwen2vl.embedding_length", 0)
    projected = vision.numbers.get("clip.vision.projection_dim", 0)
    if width != projected:
        reason = f"its vectors have length {projected}, {model.name} needs {width}: of another model size"
        raise CheckpointInvalid(projector, reason)


def _check_projector(path: Path, header: GgufHeader) -> None:
    """Check that metadata and tensors agree; if not, llama.cpp aborts the process at the first photo."""
    blocks, heads, width, projected = (
        header.numbers.get(f"clip.vision.{key}", 0)
        for key in ("block_count", "attention.head_count", "embedding_length", "projection_dim")
    )
    patch = header.numbers.get("clip.vision.patch_size", 0)
    if header.numbers.get("clip.vision.n_wa_pattern") == 1:
        raise CheckpointInvalid(path, "n_wa_pattern is 1, but must be 0 for a vision tower without windows")
    merged = header.shapes.get("mm.2.weight", (0, 0, 0, 0))[1]
    consistent = (
        blocks > 0
        and heads > 0
        and width % (4 * heads) == 0
        and patch * 2 == FACTOR
        and header.shapes.get("v.patch_embd.weight") == (patch, patch, 3, width)
        and merged == projected
    )
    if not consistent:
        raise CheckpointInvalid(path, "its metadata and its tensors contradict each other")


def _check_architecture(path: Path, header: GgufHeader, expected: str, role: str) -> None:
    """Check that the file, needed as `role`, has the architecture `expected`."""
    found = header.texts.get("general.architecture", "")
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


def available_memory() -> int:
    """Return available memory in bytes as Linux reports it, or elsewhere the machine's total memory."""
    with contextlib.suppress(OSError), Path("/proc/meminfo").open() as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
