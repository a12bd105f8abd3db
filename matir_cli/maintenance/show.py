"""`matir show`: everything that a gallery stores about one photo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matir_cli.errors import PhotoUnreadable
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.notes import stored_notes
from matir_cli.gallery.rows import StoredRegion
from matir_cli.photos.discover import stat_file
from matir_cli.records import Note, PhotoRecord

HERE = "here"

CHANGED = "changed"

NOT_READABLE = "not readable"


@dataclass(frozen=True, slots=True)
class FileDetails:
    """A file that holds the photo."""

    path: Path
    state: str
    """`HERE` (unchanged since it was indexed), `CHANGED`, or `NOT_READABLE` (missing or not accessible)."""


@dataclass(frozen=True, slots=True)
class RegionDetails:
    """A region of the photo."""

    ordinal: int
    """Position in the photo: 0 is the whole photo, then the proposer's order, then regions given."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1, photo pixels, continuous edges."""
    area_share: float
    """Fraction of the photo that the mask covers, 0..1."""
    predicted_iou: float
    stability: float
    origin: str | None
    """"human" or "data set"; None: the proposer."""
    label: str | None
    """What the region shows, in the words of its origin."""


@dataclass(frozen=True, slots=True)
class PhotoDetails:
    """Everything that the gallery stores about a photo."""

    id: int
    files: tuple[FileDetails, ...]
    """The files that hold the photo, in order of path."""
    sha256: str
    """SHA-256 of the file, hex."""
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
    """Degrees, north positive: as a sidecar says, else as the photo itself does."""
    longitude: float | None
    """Degrees, east positive; likewise."""
    rating: int | None
    """-1 (rejected) to 5, the highest of its files; None: they have none, or it has not been read."""
    keywords: tuple[str, ...]
    """Of its files and their sidecars."""
    added_at: str
    """ISO 8601, UTC."""
    preview_bytes: int | None
    """Size of the preview; None if none is stored."""
    model_set: str | None
    """Model set of the gallery."""
    notes: tuple[Note, ...]
    """What could not be read of the file when it was indexed; usually nothing."""
    regions: tuple[RegionDetails, ...]
    """The regions, the whole photo first."""


def photo_details(gallery: GalleryFile, photo_id: int) -> PhotoDetails:
    """Collect everything about the photo with this id.

    Raises:
        PhotoUnknown: the gallery does not hold it.
        GalleryDamaged: a stored value is impossible.
    """
    select = (
        "select added_at, (select octet_length(jpeg) from previews where photo_id = id) "
        "from photos where id = ?"
    )
    with gallery.snapshot():  # another process may remove the photo between the statements
        photo = gallery.photo(photo_id)
        added_at, preview_bytes = gallery.connection.execute(select, (photo_id,)).get
        regions = gallery.regions(photo_id)
        notes = stored_notes(gallery.connection, gallery.path, photo_id)
        model_set = gallery.model_set()
    record, (latitude, longitude) = photo.record, photo.position or (None, None)
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
        latitude=latitude,
        longitude=longitude,
        rating=photo.metadata.rating,
        keywords=photo.metadata.keywords,
        added_at=gallery.checked_text(added_at, f"photo {photo_id}: the time when it was added"),
        preview_bytes=preview_bytes,
        model_set=model_set,
        notes=notes,
        regions=tuple(_region(record, stored) for stored in regions),
    )


def _state(gallery: GalleryFile, path: Path) -> str:
    """Compare a file on disk with the gallery's record of it."""
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
        None if region.origin is None else region.origin.kind.value,
        None if region.origin is None else region.origin.label,
    )
