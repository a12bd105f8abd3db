"""Counts and sizes in words."""


def count_of(count: int, one: str, many: str | None = None) -> str:
    """`count` of something in words: 1 photo, 1,000 photos; `many` where that is not `one` and an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def readable_size(count: int) -> str:
    """`count` bytes for people, in powers of 1000."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
