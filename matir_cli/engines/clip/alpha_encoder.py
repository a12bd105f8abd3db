"""Alpha-CLIP as region encoder: a photo and its masks become vectors in CLIP's space."""

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
from matir_cli.engines.clip.alpha_tower import VisualTower, load_tower
from matir_cli.engines.clip.options import ClipOptions, Transform, model_file
from matir_cli.engines.options import read_options
from matir_cli.records import EngineConfig, FloatArray, ImageArray, Rle

# CLIP's normalisation of RGB in 0..1, and Alpha-CLIP's of the mask in 0..1.
_RGB_MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)

_RGB_STD = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)

_ALPHA_MEAN, _ALPHA_STD = 0.5, 0.26

_BATCH_SIZES = {"cuda": 64, "mps": 16, "cpu": 8}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a photo lies in the tower's square: the same for the photo and for its masks."""

    rows: slice
    """The photo's rows that are seen, photo pixels."""
    columns: slice
    """The photo's columns that are seen, photo pixels."""
    height: int
    """Of what is seen after scaling, pixels of the square."""
    width: int
    """Of what is seen after scaling, pixels of the square."""
    top: int
    """Empty rows of the square above it."""
    left: int
    """Empty columns of the square left of it."""


def place(transform: Transform, height: int, width: int, side: int) -> Placement:
    """Fit a `height` x `width` photo into a square of `side` pixels.

    "letterbox" keeps the photo whole and its proportions, centred between black bars: as upstream
    trains on GRIT (`train/dataset/alpha_grit.py`). "squash" stretches it over the square. "crop"
    takes the central square and loses the rest: upstream's evaluation on ImageNet-S.
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
        """Encode with `tower` where it lies, `batch_size` regions at once."""
        self._tower = tower
        self._transform: Transform = transform
        self._batch_size = batch_size
        # MPS has no antialiased interpolation.
        self._resampler = tower.proj.device if tower.proj.is_cuda else torch.device("cpu")

    @property
    def dimensions(self) -> int:
        """Length d of a vector."""
        return self._tower.architecture.dimensions

    @torch.inference_mode()
    def encode(self, image: ImageArray, masks: Sequence[Rle]) -> FloatArray:
        """(len(masks), d) float32 of unit length, one row a mask; masks in pixels of `image`.

        Raises:
            ValueError: a mask does not have the size of `image`.
        """
        height, width = image.shape[:2]
        if any((mask.height, mask.width) != (height, width) for mask in masks):
            raise ValueError(f"a mask does not have the photo's size {height} x {width}")
        side = self._tower.architecture.side
        placement = place(self._transform, height, width, side)
        rgb = torch.from_numpy(square_rgb(image, placement, side))[None]
        patches = self._tower.conv1(self._to_tower(normalise_rgb(rgb)))
        vectors = np.empty((len(masks), self.dimensions), dtype=np.float32)
        for begin in range(0, len(masks), self._batch_size):
            batch = slice(begin, begin + self._batch_size)
            alpha = square_alpha(masks[batch], placement, side, self._resampler)
            alpha_patches = self._tower.conv1_alpha(self._to_tower(normalise_alpha(alpha)))
            found = self._tower.encode_patches(patches + alpha_patches).float()
            # Not `normalize`, which would pass a vector of length 0 off as one; 0 / 0 is NaN.
            vectors[batch] = (found / found.norm(dim=1, keepdim=True)).cpu().numpy()
        return vectors

    def _to_tower(self, x: Tensor) -> Tensor:
        return x.to(self._tower.proj.device, self._tower.proj.dtype)


def normalise_rgb(rgb: Tensor) -> Tensor:
    """(n, 3, height, width) in 0..1 as CLIP's towers are trained on it."""
    return (rgb - _RGB_MEAN) / _RGB_STD


def normalise_alpha(alpha: Tensor) -> Tensor:
    """(n, 1, height, width) in 0..1 as Alpha-CLIP's tower is trained on it."""
    return (alpha - _ALPHA_MEAN) / _ALPHA_STD


def square_rgb(image: ImageArray, at: Placement, side: int) -> FloatArray:
    """(3, side, side) float32 in 0..1: the (h, w, 3) `image` as the tower sees it, black around it."""
    seen = Image.fromarray(np.ascontiguousarray(image[at.rows, at.columns]))
    square = Image.new("RGB", (side, side))
    square.paste(seen.resize((at.width, at.height), Image.Resampling.BICUBIC), (at.left, at.top))
    return np.asarray(square, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)


def square_alpha(rles: Sequence[Rle], at: Placement, side: int, device: torch.device) -> Tensor:
    """(len(rles), 1, side, side) float32 in 0..1, on `device`: how much of each pixel is mask.

    The bars beside the photo belong to no region, except to the photo as a whole: so upstream
    trains (`train/dataset/alpha_grit.py`, where the mask of a caption is all ones after padding).
    """
    # pycocotools lays masks out one after the other, each by columns.
    stored: NDArray[np.uint8] = coco.decode([masks.to_coco(rle) for rle in rles])
    seen = torch.from_numpy(stored.transpose(2, 1, 0)[:, at.columns, at.rows]).to(device)
    scaled = functional.interpolate(
        seen[:, None].float(), (at.width, at.height), mode="bilinear", antialias=True
    )
    whole = [float(masks.area(rle) == rle.height * rle.width) for rle in rles]
    alpha = torch.tensor(whole, device=device).view(-1, 1, 1, 1).repeat(1, 1, side, side)
    alpha[:, :, at.top : at.top + at.height, at.left : at.left + at.width] = scaled.transpose(2, 3)
    return alpha


def load_alpha_clip_encoder(config: EngineConfig, device: str) -> AlphaClipEncoder:
    """The region encoder of a model set on `device`: the file "visual", a .pth or .safetensors.

    Raises:
        ModelSetInvalid: an option is wrong, or the file is not named.
        CheckpointInvalid: the file is not an Alpha-CLIP visual tower.
    """
    options = read_options(config.options, ClipOptions, config.engine)
    tower = load_tower(model_file(config, "visual"), options.heads)
    tower.move(device, precision(options, device))
    return AlphaClipEncoder(tower, options.transform, batch_size(options, device))


def precision(options: ClipOptions, device: str) -> torch.dtype:
    """What a visual tower computes in on `device`."""
    if options.precision == "auto":
        # Upstream runs in half precision on CUDA.
        return torch.float16 if torch.device(device).type == "cuda" else torch.float32
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[options.precision]


def batch_size(options: ClipOptions, device: str) -> int:
    """How many pictures a visual tower is given at once on `device`."""
    return options.batch_size or _BATCH_SIZES.get(torch.device(device).type, _BATCH_SIZES["cpu"])
