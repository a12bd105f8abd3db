"""Decoding of photo files, as indexing does it, for tests."""

from pathlib import Path

import pytest

from matir_cli.errors import PhotoUnreadable
from matir_cli.photos.decode import DecodedPhoto, decode_photo
from matir_cli.photos.discover import hash_file, stat_file


def read(path: Path) -> DecodedPhoto:
    """Decode the photo in a file."""
    file = stat_file(path)
    return decode_photo(file, hash_file(file))


def reason(path: Path) -> str:
    """Return the reason why a file cannot be decoded."""
    with pytest.raises(PhotoUnreadable) as caught:
        read(path)
    assert caught.value.path == path
    return caught.value.reason
