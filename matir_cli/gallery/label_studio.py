"""Tasks of Label Studio: photos with masks and boxes as predictions, written for people to correct.

Format: https://labelstud.io/guide/predictions. What is needed to read the corrections back is in the `data`
of a task, which Label Studio keeps: the photo's SHA-256, the query, and the ids of the predictions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from matir_cli.gallery.brush_rle import encode_brush
from matir_cli.gallery.rows import StoredPhoto
from matir_cli.records import Box, Rle

IMAGE, BRUSH, BOX = "image", "mask", "box"
"""Names of the tags in the labeling configuration."""

DATA_KEY = "matir"
"""Key in a task's `data` of what `TaskData` holds."""

REGION_ID = "region-"
"""Start of the id of a prediction that is a stored region, whose id follows."""

PROPOSED_LABEL = "region"
"""Label of a region that has none."""

_LOCAL_FILES = "/data/local-files/?d="
"""Start of the URLs under which Label Studio serves local files; the path below its document root follows."""


@dataclass(frozen=True, slots=True)
class TaskData:
    """What a task tells its reader about itself."""

    sha256: str
    """Of the photo's file, hex."""
    query: str | None
    """Text that the photo was searched for; None: all regions of the photo."""
    predicted: tuple[str, ...]
    """Ids of the predictions."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A mask, or a box without one, to be corrected."""

    id: str
    """Unique in the task."""
    label: str
    box: Box
    """Photo pixels."""
    mask: Rle | None
    """Working pixels."""
    score: float


class TaskFile:
    """Writes tasks as they come, and the labeling configuration that their labels need at the end."""

    def __init__(self, tasks: IO[str], configuration: IO[str], root: Path) -> None:
        """Write to two open files.

        Args:
            root: Label Studio's document root, which the photos' paths are relative to.
        """
        self._tasks = tasks
        self._configuration = configuration
        self._root = root
        self._labels: dict[str, None] = {}
        self._written = 0
        self.outside = 0
        """Number of photos left out because they do not lie below the root."""

    def start(self) -> None:
        """Write what comes before the first task."""
        self._tasks.write("[")

    def add(
        self, photo: StoredPhoto, path: Path, query: str | None, predictions: Sequence[Prediction]
    ) -> None:
        """Write a task for a photo, as the file at `path`; count it if that does not lie below the root."""
        if not path.is_relative_to(self._root):
            self.outside += 1
            return
        self._labels |= dict.fromkeys([query] if query is not None else ())
        self._labels |= dict.fromkeys(each.label for each in predictions)
        below = quote(os.fsencode(path.relative_to(self._root)))
        ids = [each.id for each in predictions]
        known = {"sha256": photo.record.sha256.hex(), "query": query, "predicted": ids}
        task = {
            "data": {IMAGE: f"{_LOCAL_FILES}{below}", DATA_KEY: known},
            "predictions": [
                {
                    "model_version": "MaTIR",
                    "score": max((each.score for each in predictions), default=0.0),
                    "result": [_result(photo, each) for each in predictions],
                }
            ],
        }
        self._tasks.write(f"{',' if self._written else ''}\n{json.dumps(task)}")
        self._written += 1

    def end(self) -> None:
        """Complete both files."""
        self._tasks.write("\n]\n")
        # Imported here: it imports an HTTP client, which a plain search must not wait for.
        from xml.sax.saxutils import quoteattr

        labels = "".join(f"    <Label value={quoteattr(_printable(label))}/>\n" for label in self._labels)
        self._configuration.write(
            f'<View>\n  <Image name="{IMAGE}" value="${IMAGE}" zoom="true"/>\n'
            f'  <BrushLabels name="{BRUSH}" toName="{IMAGE}">\n{labels}  </BrushLabels>\n'
            f'  <RectangleLabels name="{BOX}" toName="{IMAGE}">\n{labels}  </RectangleLabels>\n</View>\n'
        )


def _printable(label: str) -> str:
    """Return a label without what XML cannot hold."""
    return "".join(c for c in label if c in "\t\n\r" or (c >= " " and not "\ud800" <= c <= "\udfff"))


def configuration_path(tasks: Path) -> Path:
    """Return where the labeling configuration of a file of tasks is written."""
    return tasks.with_suffix(".labels.xml")


def _result(photo: StoredPhoto, prediction: Prediction) -> dict[str, object]:
    """Return a prediction in Label Studio's form: a brush mask at the photo's true size, or a box."""
    width, height = photo.record.width, photo.record.height
    common: dict[str, object] = {
        "id": prediction.id,
        "to_name": IMAGE,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": prediction.score,
    }
    if prediction.mask is not None:
        encoded = encode_brush(photo.at_true_size(prediction.mask))
        value: dict[str, object] = {"format": "rle", "rle": encoded, "brushlabels": [prediction.label]}
        return common | {"type": "brushlabels", "from_name": BRUSH, "value": value}
    box = prediction.box.scaled(100 / width, 100 / height)
    corner = {"x": box.x0, "y": box.y0, "width": box.x1 - box.x0, "height": box.y1 - box.y0}
    value = corner | {"rotation": 0, "rectanglelabels": [prediction.label]}
    return common | {"type": "rectanglelabels", "from_name": BOX, "value": value}
