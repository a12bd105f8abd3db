"""CLIP's image side for the evaluation's baselines: vectors of whole pictures and of places in them."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from matir_cli.engines.clip.alpha_encoder import batch_size, normalise_rgb, place, precision, square_rgb
from matir_cli.engines.clip.image_towers import ImageTower, load_image_tower
from matir_cli.engines.clip.options import PlainClipOptions, Transform, model_file
from matir_cli.engines.options import read_options
from matir_cli.records import EngineConfig, FloatArray, ImageArray


class ClipImageEncoder:
    """Fulfils `protocols.DenseEncoder`."""

    def __init__(self, tower: ImageTower, transform: Transform, batch_size: int) -> None:
        """Encode with `tower`, `batch_size` pictures at once; `transform` makes each a square."""
        self._tower = tower
        self._transform: Transform = transform
        self._batch_size = batch_size

    @torch.inference_mode()
    def whole(self, images: Sequence[ImageArray]) -> FloatArray:
        """(len(images), d) float32 of unit length, one row a picture ((h, w, 3) uint8 RGB, of any size)."""
        vectors = np.empty((len(images), self._tower.dimensions), dtype=np.float32)
        for begin in range(0, len(images), self._batch_size):
            batch = slice(begin, begin + self._batch_size)
            squares = np.stack([self._square(image) for image in images[batch]])
            vectors[batch] = _unit(self._tower.whole(normalise_rgb(torch.from_numpy(squares))))
        return vectors

    @torch.inference_mode()
    def dense(self, image: ImageArray) -> FloatArray:
        """(n, d) float32 of unit length, one row a cell of the tower's grid, by rows.

        Cells that lie in the bars beside a letterboxed photo are left out.
        """
        square = torch.from_numpy(self._square(image))[None]
        found = self._tower.places(normalise_rgb(square))[0]
        side, cell = self._tower.side, self._tower.cell
        grid = found.view(side // cell, side // cell, -1)
        if self._transform == "letterbox":
            height, width = image.shape[:2]
            at = place(self._transform, height, width, side)
            rows, columns = (
                slice(start // cell, -(-(start + length) // cell))
                for start, length in ((at.top, at.height), (at.left, at.width))
            )
            grid = grid[rows, columns]
        return _unit(grid.flatten(0, 1))

    def _square(self, image: ImageArray) -> FloatArray:
        """(3, side, side) float32 in 0..1."""
        if self._transform == "crop":
            return central_square(image, self._tower.side)
        height, width = image.shape[:2]
        side = self._tower.side
        return square_rgb(image, place(self._transform, height, width, side), side)


def central_square(image: ImageArray, side: int) -> FloatArray:
    """(3, side, side) float32 in 0..1: as CLIP does, the short side scaled to `side`, the centre cut out.

    Computes no more of the scaled picture than the square, however long it is.
    """
    height, width = image.shape[:2]
    # Rounded as torchvision does.
    scaled_height, scaled_width = (int(side * length / min(height, width)) for length in (height, width))
    top, left = round((scaled_height - side) / 2), round((scaled_width - side) / 2)
    down, across = height / scaled_height, width / scaled_width
    box = (left * across, top * down, (left + side) * across, (top + side) * down)
    picture = Image.fromarray(np.ascontiguousarray(image))
    square = picture.resize((side, side), Image.Resampling.BICUBIC, box=box)
    return np.asarray(square, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)


def _unit(vectors: Tensor) -> FloatArray:
    """(n, d) float32; a vector of length 0 becomes NaN."""
    found = vectors.float()
    return np.asarray((found / found.norm(dim=1, keepdim=True)).cpu().numpy())


def load_clip_image_encoder(config: EngineConfig, device: str) -> ClipImageEncoder:
    """The image side of a CLIP on `device`: the file "checkpoint".

    Raises:
        ModelSetInvalid: an option is wrong, or the file is not named.
        CheckpointInvalid: the file is not a CLIP.
    """
    options = read_options(config.options, PlainClipOptions, config.engine)
    tower = load_image_tower(
        model_file(config, "checkpoint"), options.heads, device, precision(options, device)
    )
    return ClipImageEncoder(tower, options.transform, batch_size(options, device))
