"""CLIP's image encoder for the baselines: vectors of images and of grid cells."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from matir_cli.engines.batches import BatchRunner
from matir_cli.engines.clip.alpha_encoder import (
    choose_batch_size,
    compute_placement,
    normalise_rgb,
    render_rgb,
    to_unit_vectors,
)
from matir_cli.engines.clip.image_towers import ImageTower, load_image_tower
from matir_cli.engines.clip.options import PlainClipOptions, Transform, model_file
from matir_cli.engines.options import read_options
from matir_cli.records import EngineConfig, FloatArray, ImageArray


class ClipImageEncoder:
    """Fulfils `protocols.DenseEncoder`."""

    def __init__(self, tower: ImageTower, transform: Transform, batch_size: int) -> None:
        """Encode with `tower`, `batch_size` images at a time, fitted into its square by `transform`."""
        self._tower = tower
        self._transform: Transform = transform
        self._batches = BatchRunner(batch_size)

    @torch.inference_mode()
    def encode_whole(self, images: Sequence[ImageArray]) -> FloatArray:
        """Return (len(images), d) float32 of unit length, one row per image ((h, w, 3) uint8 RGB).

        Raises:
            EngineFailed: the device has not enough memory for one image at a time.
        """

        def encode_batch(batch: slice) -> FloatArray:
            squares = np.stack([self._square(image) for image in images[batch]])
            return to_unit_vectors(self._tower.encode_whole(normalise_rgb(torch.from_numpy(squares))))

        rows = list(self._batches.run(len(images), encode_batch))
        return np.concatenate(rows) if rows else np.empty((0, self._tower.dimensions), dtype=np.float32)

    @torch.inference_mode()
    def encode_dense(self, image: ImageArray) -> FloatArray:
        """Return (n, d) float32 of unit length, one row per cell of the tower's grid, row by row.

        Cells entirely in the bars beside a letterboxed photo are left out.
        """
        square = torch.from_numpy(self._square(image))[None]
        vectors = self._tower.encode_dense(normalise_rgb(square))[0]
        side, cell = self._tower.side, self._tower.cell
        grid = vectors.view(side // cell, side // cell, -1)
        if self._transform == "letterbox":
            height, width = image.shape[:2]
            at = compute_placement(self._transform, height, width, side)
            rows, columns = (
                slice(start // cell, -(-(start + length) // cell))
                for start, length in ((at.top, at.height), (at.left, at.width))
            )
            grid = grid[rows, columns]
        return to_unit_vectors(grid.flatten(0, 1))

    def _square(self, image: ImageArray) -> FloatArray:
        """Return (3, side, side) float32 in 0..1: `image` fitted into the tower's square."""
        if self._transform == "crop":
            return crop_central_square(image, self._tower.side)
        height, width = image.shape[:2]
        side = self._tower.side
        return render_rgb(image, compute_placement(self._transform, height, width, side), side)


def crop_central_square(image: ImageArray, side: int) -> FloatArray:
    """Return (3, side, side) float32 in 0..1: CLIP's own transform of `image` ((h, w, 3) uint8 RGB).

    The short side is scaled to `side`, and the central square is cut out. Only that square of the scaled
    image is computed, however long the image is.
    """
    height, width = image.shape[:2]
    # Rounded as in torchvision.
    scaled_height, scaled_width = (int(side * length / min(height, width)) for length in (height, width))
    top, left = round((scaled_height - side) / 2), round((scaled_width - side) / 2)
    y_scale, x_scale = height / scaled_height, width / scaled_width
    box = (left * x_scale, top * y_scale, (left + side) * x_scale, (top + side) * y_scale)
    picture = Image.fromarray(np.ascontiguousarray(image))
    square = picture.resize((side, side), Image.Resampling.BICUBIC, box=box)
    return np.asarray(square, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)


def load_clip_image_encoder(config: EngineConfig, device: str) -> ClipImageEncoder:
    """Load a CLIP's image encoder onto `device`, from the model set's file "checkpoint".

    Raises:
        ModelSetInvalid: an option is invalid, or the model set does not name the file.
        CheckpointInvalid: the file is not a CLIP checkpoint.
    """
    options = read_options(config.options, PlainClipOptions, config.engine)
    path = model_file(config, "checkpoint")
    tower = load_image_tower(path, options.heads, device, options.precision)
    return ClipImageEncoder(tower, options.transform, choose_batch_size(options, device))
