"""Files of a model, and their sources: the Hugging Face hub, a web address, or the model set's folder."""

from pathlib import Path
from typing import TypeAlias

import msgspec


class HubSource(msgspec.Struct, frozen=True):
    """A file in a repository on the Hugging Face hub."""

    repo: str
    """Owner and name, such as "facebook/sam2.1-hiera-large"."""
    file: str
    """Path in the repository, with forward slashes."""
    revision: str
    """Branch, tag, pull request or commit."""

    @property
    def address(self) -> str:
        """Identifier of the source, for messages and hash records."""
        return f"hub:{self.repo}@{self.revision}/{self.file}"


class UrlSource(msgspec.Struct, frozen=True):
    """A file at a web address."""

    url: str
    """An https address, or http on this machine itself."""
    mirrors: tuple[str, ...]
    """Other addresses of the same file, tried in this order if `url` fails."""
    name: str
    """Name of the file on disk: one plain file name."""

    @property
    def address(self) -> str:
        """Identifier of the source, for messages and hash records."""
        return self.url


class LocalSource(msgspec.Struct, frozen=True):
    """A file in the folder of the model set's TOML."""

    path: Path
    """Absolute, symbolic links resolved."""

    @property
    def address(self) -> str:
        """Identifier of the source, for messages and hash records."""
        return str(self.path)


Source: TypeAlias = HubSource | UrlSource | LocalSource


class ModelFile(msgspec.Struct, frozen=True):
    """One file of a model."""

    part: str
    """Part that the file belongs to, one of `catalogue.PARTS`."""
    role: str
    """The engine's name for the file, such as "checkpoint"."""
    source: Source
    bytes: int | None
    """Size of the file; None for a local file without a declared size."""
    exact: bool
    """True if `bytes` is the exact size, False if it is approximate."""
    sha256: str | None
    """Hash published upstream, lower-case hex; None if upstream publishes none."""

    @property
    def label(self) -> str:
        """Part and role, such as "encoder.visual"."""
        return f"{self.part}.{self.role}"
