"""The working image of a stored photo: its preview, or its unchanged file."""

from __future__ import annotations

from matir_cli.errors import PhotoUnknown, PhotoUnreadable
from matir_cli.gallery.rows import StoredPhoto
from matir_cli.gallery.union import GalleryReader
from matir_cli.photos.decode import decode_photo
from matir_cli.photos.discover import stat_file
from matir_cli.photos.preview import decode_preview
from matir_cli.records import ImageArray


def load_working_image(
    gallery: GalleryReader, photo_id: int, *, prefer_file: bool = False
) -> ImageArray | None:
    """Load a stored photo at working size: (mask_height, mask_width, 3) uint8 RGB.

    The preview is used if one is stored, else the first file that is unchanged since it was indexed.
    Returns None if there is neither, or if the photo is no longer in the gallery.

    Args:
        prefer_file: use an unchanged file first: a preview is a JPEG, whose pixels differ a little.

    Raises:
        PhotoUnreadable: the stored preview cannot be decoded, or has not the size of the photo's masks.
    """
    with gallery.snapshot():
        try:
            stored = gallery.photo(photo_id)
        except PhotoUnknown:
            return None
        preview = gallery.preview(photo_id)
    if prefer_file and (image := _from_files(gallery, stored)) is not None:
        return image
    if preview is not None:
        image = decode_preview(preview)
        if image.shape[:2] != (stored.record.mask_height, stored.record.mask_width):
            raise PhotoUnreadable(stored.paths[0], "its stored preview has another size than its masks")
        return image
    return None if prefer_file else _from_files(gallery, stored)


def _from_files(gallery: GalleryReader, stored: StoredPhoto) -> ImageArray | None:
    """Decode the first file of a photo that is unchanged since it was indexed; None if there is none."""
    for path in stored.paths:
        try:
            file = stat_file(path)
            if gallery.is_unchanged(file):
                image = decode_photo(file, stored.record.sha256).image
                # A raw file that shares the photo of a picture may have another size.
                if image.shape[:2] == (stored.record.mask_height, stored.record.mask_width):
                    return image
        except PhotoUnreadable:
            continue
    return None
