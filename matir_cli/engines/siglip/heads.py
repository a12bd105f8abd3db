"""Attention heads of SigLIP's towers, which a checkpoint does not tell."""

from pathlib import Path

from matir_cli.errors import CheckpointInvalid

_PUBLISHED = {1152: 16, 1536: 16}
"""Heads by width where they are not width / 64: So400m and giant (SigLIP 2, arXiv 2502.14786)."""


def count_heads(path: Path, width: int, chosen: int | None) -> int:
    """Return `chosen`, or the heads of the published towers of this width.

    Raises:
        CheckpointInvalid: they do not divide the width of the tower in the file at `path`.
    """
    heads = chosen or _PUBLISHED.get(width, max(1, width // 64))
    if width % heads:
        raise CheckpointInvalid(path, f"{heads} heads do not divide the width {width}")
    return heads
