"""Alpha-CLIP as region encoder: vectors of a photo's masks in CLIP's space."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco
from torch import Tensor
from torch.nn import functional

from matir_cli import masks
from matir_cli.engines.batches import BatchRunner, split_batch
from matir_cli.engines.clip.alpha_tower import VisualTower, load_tower
from matir_cli.engines.clip.options import ClipOptions, TowerOptions, Transform, model_file
from matir_cli.engines.device import choose_dtype, move
from matir_cli.engines.options import read_options
from matir_cli.engines.protocols import MaskedPhoto
from matir_cli.records import EngineConfig, FloatArray, ImageArray, Rle

_RGB_MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
"""CLIP's mean of RGB values in 0..1."""

_RGB_STD = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)
"""CLIP's standard deviation of RGB values in 0..1."""

_ALPHA_MEAN, _ALPHA_STD = 0.5, 0.26
"""Alpha-CLIP's mean and standard deviation of mask values in 0..1."""

_BATCH_SIZES = {"cuda": 64, "mps": 16, "cpu": 8}
"""Default number of images per forward pass, by type of device."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Placement of a photo, and of its masks, in the tower's square input."""

    rows: slice
    """Rows of the photo that are used, in photo pixels."""
    columns: slice
    """Columns of the photo that are used, in photo pixels."""
    height: int
    """Height of that part after scaling, in pixels of the square."""
    width: int
    """Width of that part after scaling, in pixels of the square."""
    top: int
    """Empty rows of the square above that part."""
    left: int
    """Empty columns of the square to the left of that part."""


def compute_placement(transform: Transform, height: int, width: int, side: int) -> Placement:
    """Fit a photo of `height` x `width` pixels into a square of `side` pixels.

    "letterbox" keeps the whole photo and its aspect ratio, centred between black bars, as in upstream's
    training on GRIT (`train/dataset/alpha_grit.py`). "squash" stretches the photo over the square. "crop"
    takes the central square and drops the rest, as in upstream's evaluation on ImageNet-S.
    """
    rows, columns = slice(0, height), slice(0, width)
    if transform == "squash":
        return Placement(rows, columns, side, side, 0, 0)
    if transform == "crop":
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        return Placement(slice(top, top + short), slice(left, left + short), side, side, 0, 0)
    long = max(height, width)
    scaled_height, scaled_width = (max(1, round(length * side / long)) for length in (height, width))
    top, left = (side - scaled_height) // 2, (side - scaled_width) // 2
    return Placement(rows, columns, scaled_height, scaled_width, top, left)


class AlphaClipEncoder:
    """Fulfils `protocols.RegionEncoder`."""

    def __init__(self, tower: VisualTower, transform: Transform, batch_size: int) -> None:
        """Encode with `tower`, on its device and in its dtype, `batch_size` regions at a time."""
        self._tower = tower
        self._transform: Transform = transform
        self._batches = BatchRunner(batch_size)
        # MPS has no antialiased interpolation.
        self._resampler = tower.proj.device if tower.proj.is_cuda else torch.device("cpu")

    @property
    def dimensions(self) -> int:
        """Length d of a vector."""
        return self._tower.architecture.dimensions

    def encode(self, image: ImageArray, masks: Sequence[Rle]) -> FloatArray:
        """Return (len(masks), d) float32 of unit length, one row per mask.

        Args:
            image: (h, w, 3) uint8 RGB, of any size.
            masks: masks in pixels of `image`; one of all ones stands for the whole photo.

        Raises:
            ValueError: a mask does not have the size of `image`.
            EngineFailed: the device has not enough memory for one mask at a time.
        """
        (vectors,) = self.encode_photos([MaskedPhoto(image, masks)])
        return vectors

    @torch.inference_mode()
    def encode_photos(self, photos: Sequence[MaskedPhoto]) -> list[FloatArray]:
        """Return what `encode` returns for each of `photos`; batches of masks run over their borders."""
        placements = [self._place(photo) for photo in photos]
        counts = [len(photo.masks) for photo in photos]
        side = self._tower.architecture.side
        embedded: dict[int, Tensor] = {}  # the photos in the batch: the same for all masks of a photo

        def encode_batch(batch: slice) -> Tensor:
            parts = list(split_batch(counts, batch))
            for group in [group for group in embedded if group < parts[0].group]:
                del embedded[group]
            alphas = [
                render_alpha(
                    photos[part.group].masks[part.items], placements[part.group], side, self._resampler
                )
                for part in parts
            ]
            patches = self._tower.conv1_alpha(self._to_tower(normalise_alpha(torch.cat(alphas))))
            for part in parts:
                if part.group not in embedded:
                    embedded[part.group] = self._embed(photos[part.group].image, placements[part.group])
                patches[part.rows] += embedded[part.group]
            return self._tower.encode_patches(patches)

        # They stay on the device until the last batch, so that the next masks are drawn while it computes.
        rows = list(self._batches.run(sum(counts), encode_batch))
        if not rows:
            return [np.empty((0, self.dimensions), dtype=np.float32) for _ in photos]
        return np.split(to_unit_vectors(torch.cat(rows)), np.cumsum(counts)[:-1])

    def _place(self, photo: MaskedPhoto) -> Placement:
        """Return the place of a photo in the tower's input; ValueError if a mask has another size."""
        height, width = check_mask_sizes(photo)
        return compute_placement(self._transform, height, width, self._tower.architecture.side)

    def _embed(self, image: ImageArray, placement: Placement) -> Tensor:
        """Return (1, width, grid, grid): the embedded patches of a photo without a mask."""
        rgb = torch.from_numpy(render_rgb(image, placement, self._tower.architecture.side))[None]
        patches: Tensor = self._tower.conv1(self._to_tower(normalise_rgb(rgb)))
        return patches

    def _to_tower(self, x: Tensor) -> Tensor:
        """Move `x` to the tower's device and dtype."""
        return move(x, self._tower.proj.device, self._tower.proj.dtype)


def check_mask_sizes(photo: MaskedPhoto) -> tuple[int, int]:
    """Return height and width of a photo in pixels; ValueError if one of its masks has another size."""
    height, width = photo.image.shape[:2]
    if any((mask.height, mask.width) != (height, width) for mask in photo.masks):
        raise ValueError(f"a mask does not have the photo's size {height} x {width}")
    return height, width


def to_unit_vectors(vectors: Tensor) -> FloatArray:
    """Scale the rows of `vectors` (n, d) to unit length, as float32; a row of length 0 becomes NaN."""
    vectors = vectors.float()
    # Not `normalize`, which would leave a row of length 0 as it is; 0 / 0 is NaN.
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return np.asarray((vectors / lengths).cpu().numpy())


def normalise_rgb(rgb: Tensor) -> Tensor:
    """Normalise (n, 3, h, w) RGB in 0..1 with the mean and deviation that CLIP is trained with."""
    return (rgb - _RGB_MEAN) / _RGB_STD


def normalise_alpha(alpha: Tensor) -> Tensor:
    """Normalise (n, 1, h, w) masks in 0..1 with the mean and deviation that Alpha-CLIP is trained with."""
    return (alpha - _ALPHA_MEAN) / _ALPHA_STD


def render_rgb(image: ImageArray, at: Placement, side: int) -> FloatArray:
    """Return (3, side, side) float32 in 0..1: `image` ((h, w, 3) uint8 RGB) placed on a black square."""
    used = Image.fromarray(np.ascontiguousarray(image[at.rows, at.columns]))
    square = Image.new("RGB", (side, side))
    square.paste(used.resize((at.width, at.height), Image.Resampling.BICUBIC), (at.left, at.top))
    return np.asarray(square, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)


def render_alpha(rles: Sequence[Rle], at: Placement, side: int, device: torch.device) -> Tensor:
    """Return (len(rles), 1, side, side) float32 in 0..1, on `device`: the share of each pixel in the mask.

    The bars beside the photo belong to no mask, except to that of the whole photo, as in upstream's
    training (`train/dataset/alpha_grit.py`, where the mask of a caption is all ones after padding).
    """
    # pycocotools stores masks one after the other, each column-major.
    decoded: NDArray[np.uint8] = coco.decode([masks.to_coco(rle) for rle in rles])
    used = move(torch.from_numpy(decoded.transpose(2, 1, 0)[:, at.columns, at.rows]), device)
    scaled = functional.interpolate(
        used[:, None].float(), (at.width, at.height), mode="bilinear", antialias=True
    )
    whole = [float(masks.area(rle) == rle.height * rle.width) for rle in rles]
    alpha = torch.tensor(whole, device=device).view(-1, 1, 1, 1).repeat(1, 1, side, side)
    alpha[:, :, at.top : at.top + at.height, at.left : at.left + at.width] = scaled.transpose(2, 3)
    return alpha


def load_alpha_clip_encoder(config: EngineConfig, device: str) -> AlphaClipEncoder:
    """Load a model set's region encoder onto `device`, from its file "visual", a .pth or .safetensors.

    Raises:
        ModelSetInvalid: an option is invalid, or the model set does not name the file.
        CheckpointInvalid: the file is not an Alpha-CLIP visual tower.
    """
    options = read_options(config.options, ClipOptions, config.engine)
    tower = load_visual_tower(config, options, device)
    return AlphaClipEncoder(tower, options.transform, choose_batch_size(options, device))


def load_visual_tower(config: EngineConfig, options: ClipOptions, device: str) -> VisualTower:
    """Load the tower in the file "visual" onto `device`; errors as in `load_alpha_clip_encoder`."""
    tower = load_tower(model_file(config, "visual"), options.heads)
    tower.move(device, choose_dtype(options.precision, device, tower.architecture.width))
    return tower


def choose_batch_size(options: TowerOptions, device: str) -> int:
    """Return the number of images per forward pass of a visual tower on `device`."""
    return options.batch_size or _BATCH_SIZES.get(torch.device(device).type, _BATCH_SIZES["cpu"])
