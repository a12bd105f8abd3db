"""The pixels of a stored photo at working size: its preview, or its unchanged file."""

from __future__ import annotations

from matir_cli.errors import PhotoUnknown, PhotoUnreadable
from matir_cli.gallery.database import GalleryFile
from matir_cli.photos.decode import decode_photo
from matir_cli.photos.discover import stat_file
from matir_cli.photos.preview import decode_preview
from matir_cli.records import ImageArray


def load_working_image(gallery: GalleryFile, photo_id: int) -> ImageArray | None:
    """A stored photo at working size: its preview, else its file if that is as it was; else None.

    None, too, for a photo that is not stored any more.

    Raises:
        PhotoUnreadable: its preview is not one.
    """
    preview = gallery.preview(photo_id)
    if preview is not None:
        return decode_preview(preview)
    try:
        stored = gallery.photo(photo_id)
    except PhotoUnknown:
        return None
    for path in stored.paths:
        try:
            file = stat_file(path)
            if gallery.is_unchanged(file):
                return decode_photo(file, stored.record.sha256).image
        except PhotoUnreadable:
            continue
    return None
