"""What is checked of the judge's two files before llama.cpp is given them.

llama.cpp refuses most files that are wrong, but ends the process on some (keys that
contradict the tensors) and where memory runs out while it computes.
"""

import contextlib
import os
from pathlib import Path

from matir_cli.engines.llama_cpp.gguf_header import GgufHeader, read_gguf_header
from matir_cli.engines.qwen_vl.boxes import FACTOR
from matir_cli.errors import CheckpointInvalid, MemoryTooSmall

COMPUTE_BYTES = 256 * 1024**2
"""About what llama.cpp needs to compute with, beyond what grows with the photo or the context."""


def check_files(model: Path, projector: Path) -> None:
    """Whether the two files are Qwen2.5-VL's and fit together, before llama.cpp sees them.

    Raises:
        CheckpointInvalid: they are not or do not; the reason names which and why.
    """
    text, vision = read_gguf_header(model), read_gguf_header(projector)
    _check_architecture(model, text, "qwen2vl", "the text model of Qwen2.5-VL")
    _check_architecture(projector, vision, "clip", "a vision projector")
    kind = vision.texts.get("clip.projector_type", "of no known kind")
    if not vision.numbers.get("clip.has_vision_encoder") or kind != "qwen2.5vl_merger":
        raise CheckpointInvalid(projector, f"a projector for Qwen2.5-VL is needed, this one is {kind}")
    width = text.numbers.get("qwen2vl.embedding_length", 0)
    projected = vision.numbers.get("clip.vision.projection_dim", 0)
    if not text.numbers.get("qwen2vl.block_count"):
        raise CheckpointInvalid(model, "a text model without layers")
    _check_projector(projector, vision)
    if width != projected:
        reason = f"it gives vectors of {projected}, but {model.name} takes {width}: of another model size"
        raise CheckpointInvalid(projector, reason)


def _check_projector(path: Path, header: GgufHeader) -> None:
    """Whether keys and tensors agree; where they do not, llama.cpp ends the process at the first photo."""
    blocks, heads, width, projected = (
        header.numbers.get(f"clip.vision.{key}", 0)
        for key in ("block_count", "attention.head_count", "embedding_length", "projection_dim")
    )
    patch = header.numbers.get("clip.vision.patch_size", 0)
    if header.numbers.get("clip.vision.n_wa_pattern") == 1:
        raise CheckpointInvalid(path, "it says 1 for a vision tower without windows, which has to be 0")
    merged = header.shapes.get("mm.2.weight", (0, 0, 0, 0))[1]
    sound = (
        blocks > 0
        and heads > 0
        and width % (4 * heads) == 0
        and patch * 2 == FACTOR
        and header.shapes.get("v.patch_embd.weight") == (patch, patch, 3, width)
        and merged == projected
    )
    if not sound:
        raise CheckpointInvalid(path, "its keys and its tensors contradict each other")


def _check_architecture(path: Path, header: GgufHeader, wanted: str, what: str) -> None:
    found = header.texts.get("general.architecture", "")
    if found != wanted:
        raise CheckpointInvalid(path, f"{what} (architecture {wanted}) is needed, this is {found or 'none'}")


def check_memory(model: Path, projector: Path, context_bytes: int, patches: int) -> None:
    """Whether files, context and a photo of `patches` patches fit into the memory that can be had.

    llama.cpp maps the files, so it would start all the same and read them from disk over and over.

    Raises:
        MemoryTooSmall: they do not.
    """
    # The windows of the vision tower are masked with a square matrix, in float32 and float16.
    work = context_bytes + patches**2 * 6 + COMPUTE_BYTES
    needed = model.stat().st_size + projector.stat().st_size + work
    available = available_memory()
    if needed > available:
        raise MemoryTooSmall(model, needed, available)


def available_memory() -> int:
    """Bytes: what Linux says is available, else all that the machine has."""
    with contextlib.suppress(OSError), Path("/proc/meminfo").open() as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
