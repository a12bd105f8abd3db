"""What a user wants to become of results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from matir_cli.cli.common import check_distinct
from matir_cli.errors import OutputExists

ANSWER = "answer"
"""One JSON object for one query of many: the query and its results."""


@dataclass(frozen=True, slots=True)
class Form:
    """What is to become of results."""

    printed: str | None
    """"json", "jsonl", "paths", "null", `ANSWER`, or None for the table."""
    rle: bool
    preview: bool
    all_instances: bool
    masks: Path | None
    cutouts: Path | None
    overlays: Path | None
    coco: Path | None
    yolo: Path | None
    html: Path | None
    force: bool

    def check(self) -> None:
        """Refuse at once what could not be written after a long search.

        Raises:
            OutputExists: a file that is to be kept.
            UsageError: options that contradict each other.
        """
        if self.preview and self.printed is not None:
            raise click.UsageError("--preview goes with the table, not with --json, --jsonl, --paths or -0.")
        check_distinct(self.coco, self.html)
        config = None if self.yolo is None else self.yolo / "data.yaml"
        for path in (self.coco, self.html, config):
            if path is not None and path.is_file() and not self.force:
                raise OutputExists(path)

    @property
    def writes(self) -> bool:
        """Whether files are asked for."""
        return any((self.masks, self.cutouts, self.overlays, self.coco, self.yolo, self.html))

    @property
    def needs_pixels(self) -> bool:
        return any((self.cutouts, self.overlays, self.yolo, self.html, self.preview))
