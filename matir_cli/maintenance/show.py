"""`matir show`: all that a gallery holds of one photo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matir_cli.errors import PhotoUnreadable
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.rows import StoredRegion
from matir_cli.photos.discover import stat_file
from matir_cli.records import PhotoRecord

HERE = "here"

CHANGED = "changed"

NOT_READABLE = "not readable"


@dataclass(frozen=True, slots=True)
class FileDetails:
    """A file that holds the photo."""

    path: Path
    state: str
    """here: as it was when it was read. changed: not so. not readable: gone, or out of reach."""


@dataclass(frozen=True, slots=True)
class RegionDetails:
    """A region of the photo."""

    ordinal: int
    """0 is the whole photo, then the proposer's order."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1, photo pixels, continuous edges."""
    area_share: float
    """Part of the photo that the mask covers, 0..1."""
    predicted_iou: float
    stability: float


@dataclass(frozen=True, slots=True)
class PhotoDetails:
    """A photo of the gallery."""

    id: int
    files: tuple[FileDetails, ...]
    """In order of path."""
    sha256: str
    """Of the file, hex."""
    width: int
    """Photo pixels, orientation applied."""
    height: int
    mask_width: int
    """Working pixels."""
    mask_height: int
    orientation: int
    """EXIF orientation of the file, 1 to 8."""
    taken_at: str | None
    """ISO 8601, the camera's local time."""
    camera: str | None
    latitude: float | None
    """Degrees, north positive."""
    longitude: float | None
    """Degrees, east positive."""
    added_at: str
    """ISO 8601, UTC."""
    preview_bytes: int | None
    """None where no preview is stored."""
    model_set: str | None
    """What it was indexed with."""
    regions: tuple[RegionDetails, ...]
    """The whole photo first."""


def photo_details(gallery: GalleryFile, photo_id: int) -> PhotoDetails:
    """All about the photo with this id; it must be here."""
    photo = gallery.photo(photo_id)
    select = (
        "select added_at, (select octet_length(jpeg) from previews where photo_id = id) "
        "from photos where id = ?"
    )
    added_at, preview_bytes = gallery.connection.execute(select, (photo_id,)).get
    record = photo.record
    return PhotoDetails(
        id=photo_id,
        files=tuple(FileDetails(path, _state(gallery, path)) for path in photo.paths),
        sha256=record.sha256.hex(),
        width=record.width,
        height=record.height,
        mask_width=record.mask_width,
        mask_height=record.mask_height,
        orientation=record.orientation,
        taken_at=record.taken_at,
        camera=record.camera,
        latitude=record.latitude,
        longitude=record.longitude,
        added_at=str(added_at),
        preview_bytes=preview_bytes,
        model_set=gallery.model_set(),
        regions=tuple(_region(record, stored) for stored in gallery.regions(photo_id)),
    )


def _state(gallery: GalleryFile, path: Path) -> str:
    try:
        return HERE if gallery.is_unchanged(stat_file(path)) else CHANGED
    except PhotoUnreadable:
        return NOT_READABLE


def _region(photo: PhotoRecord, stored: StoredRegion) -> RegionDetails:
    box, region = stored.box, stored.region
    return RegionDetails(
        stored.ordinal,
        box.rounded(2),
        round(photo.share(region.area), 6),
        round(region.predicted_iou, 4),
        round(region.stability, 4),
    )
