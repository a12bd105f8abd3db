"""What a model set can do, for people who choose one: the table `[abilities]` of its TOML."""

from typing import Annotated, TypeAlias

import msgspec

Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=2000)]
"""A text in a model set's TOML."""


class Abilities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the author of a model set says about it, for people who choose a set."""

    languages: Text = ""
    """Languages of queries; empty if unknown."""
    commercial_use: bool | None = None
    """True if the licences of all files permit commercial use; None if unknown."""
    memory_mb: Annotated[int, msgspec.Meta(gt=0, le=1 << 30)] | None = None
    """Main memory that the largest part needs on a CPU, in 10^6 bytes; None if unknown."""
    measured: Text = ""
    """What was measured, and with what; empty if nothing."""
