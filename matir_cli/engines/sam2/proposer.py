"""Regions by SAM 2: a grid of point prompts, three masks a point, the doubtful and the doubled dropped.

The same regions as upstream's `SAM2AutomaticMaskGenerator` (facebookresearch/sam2,
sam2/automatic_mask_generator.py) with one crop, in an order that does the costly last:
predicted IoU, before there is any mask; stability on the low-resolution logits, which settles
clear cases; boxes and stability at full size for the rest; NMS; run lengths of what is left.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from pycocotools import mask as coco
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it
from torchvision.ops import nms

from matir_cli.engines.options import read_options
from matir_cli.engines.sam2.decoder import Picture, PromptDecoder
from matir_cli.engines.sam2.model import load_model
from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.records import Box, EngineConfig, ImageArray, Point, Region, Rle

_MEAN = (0.485, 0.456, 0.406)  # ImageNet's, RGB, of values 0..1

_STD = (0.229, 0.224, 0.225)

_TOKENS_PER_BATCH = {"cuda": 1 << 18, "mps": 1 << 16, "cpu": 1 << 13}
"""Image tokens of a batch of points, where `points_per_batch` leaves it open: 4096 a point at 1024 pixels.

A GPU wants to be busy; a CPU wants the batch in its cache (measured with Hiera-T).
"""

_PIXELS_AT_ONCE = {"cuda": 1 << 28, "mps": 1 << 26, "cpu": 1 << 20}
"""Pixels of full-size logits held at a time, 4 bytes each."""

_SLACK = 1.5
"""A mask goes to full size if at low resolution so many square roots of its pixels more would make it stable.

Of 6,500 masks of a trained model that are stable there, at thresholds from 0.5 to 0.9, one needs more.
"""

_FOREGROUND, _CORNER, _OTHER_CORNER = 1, 2, 3
"""The prompt encoder's labels of a point and of a box's two corners."""


def load_sam2_proposer(config: EngineConfig, device: str) -> "Sam2Proposer":
    """The proposer that `config` describes, on `device` ("cuda", "mps" or "cpu").

    Raises:
        ModelSetInvalid: its options are wrong.
        CheckpointInvalid: its file "checkpoint" is not what they say.
    """
    options = read_options(config.options, Sam2Options, "sam2")
    return Sam2Proposer(load_model(options, config.files["checkpoint"]), options, device)


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Masks of one picture, row by row."""

    logits: Tensor
    """(m, s / 4, s / 4): at the decoder's resolution."""
    predicted_iou: Tensor
    """(m,)."""
    stability: Tensor
    """(m,), at full size."""
    boxes: Tensor
    """(m, 4): first column and row, last column and row; these belong to the mask, as in upstream's NMS."""
    areas: Tensor
    """(m,), pixels at full size."""

    def __getitem__(self, rows: Tensor) -> "_Candidates":
        boxes, areas = self.boxes[rows], self.areas[rows]
        return _Candidates(self.logits[rows], self.predicted_iou[rows], self.stability[rows], boxes, areas)


class Sam2Proposer:
    """Fulfils `protocols.RegionProposer` with `model`, in evaluation mode, with the weights it has now."""

    def __init__(self, model: SAM2Base, options: Sam2Options, device: str) -> None:
        self._options = options
        self._device = torch.device(device)
        self._decoder = PromptDecoder(model.to(self._device))
        tokens = model.sam_image_embedding_size**2
        self._batch = options.points_per_batch or max(1, _TOKENS_PER_BATCH[self._device.type] // tokens)

    def propose(self, image: ImageArray) -> list[Region]:
        """Regions of `image` ((h, w, 3) uint8 RGB) in its own pixels, by predicted IoU, highest first."""
        height, width, _ = image.shape
        with torch.inference_mode(), self._precision():
            picture = self._picture(image)
            batches = torch.split(self._grid(), self._batch)
            found = _join([self._stable(*self._likely(picture, points), height, width) for points in batches])
            kept = found[nms(found.boxes.float(), found.predicted_iou.float(), self._options.nms_threshold)]
            return self._regions(kept, height, width)

    def refine(self, image: ImageArray, boxes: Sequence[Box]) -> list[Region | None]:
        """For each box, in pixels of `image` ((h, w, 3) uint8 RGB), the mask that SAM 2 sees in it.

        The image is encoded once for all. None where it sees nothing.
        """
        if not boxes:
            return []
        height, width, _ = image.shape
        scale = self._options.image_size / np.array([width, height])
        corners = np.array([((b.x0, b.y0), (b.x1, b.y1)) for b in boxes]) * scale
        prompts = torch.from_numpy(corners.astype(np.float32)).to(self._device)
        found: list[Region | None] = []
        with torch.inference_mode(), self._precision():
            picture = self._picture(image)
            for some in torch.split(prompts, self._batch):
                labels = torch.tensor([_CORNER, _OTHER_CORNER], device=self._device).expand(len(some), 2)
                decoded = self._decoder.decode(picture, some, labels)
                answers = self._measured(*self._decoder.single(picture, decoded), height, width)
                regions = self._regions(answers, height, width)
                found += [region if region.area else None for region in regions]
        return found

    def at(self, image: ImageArray, point: Point) -> Region | None:
        """Of SAM 2's three masks at a point, in pixels of `image` ((h, w, 3) uint8 RGB), the best.

        By predicted IoU, as upstream's predictor is used for one point. None where that is empty.
        """
        height, width, _ = image.shape
        side = self._options.image_size
        prompt = torch.tensor([[[point.x * side / width, point.y * side / height]]], device=self._device)
        with torch.inference_mode(), self._precision():
            picture = self._picture(image)
            labels = torch.full((1, 1), _FOREGROUND, device=self._device)
            decoded = self._decoder.decode(picture, prompt, labels)
            keep = torch.zeros_like(decoded.predicted_iou, dtype=torch.bool)
            keep[0, 1 + decoded.predicted_iou[0, 1:].argmax()] = True
            logits = self._decoder.masks(picture, decoded, keep)
            (region,) = self._regions(
                self._measured(logits, decoded.predicted_iou[keep], height, width), height, width
            )
        return region if region.area else None

    def _precision(self) -> AbstractContextManager[object]:
        """bfloat16 where CUDA has it in hardware, as upstream's examples do; else float32."""
        if self._device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def _picture(self, image: ImageArray) -> Picture:
        """Squeeze to the square, normalise, encode."""
        pixels = torch.from_numpy(np.array(image))  # torch wants an array of its own, that it may write to
        if self._device.type == "cuda":  # MPS may lack the antialiased resize, so only here before it
            pixels = pixels.to(self._device)
        pixels = pixels.permute(2, 0, 1)[None].float() / 255
        side = self._options.image_size
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=True)
        mean, std = pixels.new_tensor(_MEAN), pixels.new_tensor(_STD)
        normalised = (pixels - mean[:, None, None]) / std[:, None, None]
        return self._decoder.picture(normalised.to(self._device))

    def _grid(self) -> Tensor:
        """(points_per_side^2, 1, 2) float32: x and y of the point prompts in the square, row by row."""
        count = self._options.points_per_side
        along = (torch.arange(count, dtype=torch.float32) + 0.5) * (self._options.image_size / count)
        y, x = torch.meshgrid(along, along, indexing="ij")
        return torch.stack([x, y], dim=-1).view(-1, 1, 2).to(self._device)

    def _likely(self, picture: Picture, points: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (m, s / 4, s / 4) and predicted IoU (m,) of the masks at `points` that may be good."""
        labels = torch.full((len(points), 1), _FOREGROUND, device=self._device)
        decoded = self._decoder.decode(picture, points, labels)
        keep = decoded.predicted_iou > self._options.predicted_iou_threshold
        keep[:, 0] = False  # the mask for prompts with one answer
        return self._decoder.masks(picture, decoded, keep), decoded.predicted_iou[keep]

    def _stable(self, logits: Tensor, predicted_iou: Tensor, height: int, width: int) -> _Candidates:
        """Those of the masks that are stable at full size and not empty."""
        threshold, offset = self._options.stability_threshold, self._options.stability_offset
        inner, outer = _cut(logits, offset)
        hopeful = (inner + _SLACK * outer.sqrt() >= threshold * outer) & (outer > 0)
        measured = self._measured(logits[hopeful], predicted_iou[hopeful], height, width)
        return measured[(measured.stability >= threshold) & (measured.areas > 0)]

    def _measured(self, logits: Tensor, predicted_iou: Tensor, height: int, width: int) -> _Candidates:
        """The masks with what only shows at full size."""
        boxes, areas, stability = [], [], []
        for some in self._full_size(logits, height, width):
            inner, outer = _cut(some, self._options.stability_offset)
            stability.append(inner / outer)
            areas.append(_area(some, 0.0))
            boxes.append(_boxes(some > 0))
        return _Candidates(logits, predicted_iou, torch.cat(stability), torch.cat(boxes), torch.cat(areas))

    def _full_size(self, logits: Tensor, height: int, width: int) -> Iterator[Tensor]:
        """The logits (m, h, w) of the image's own pixels, some masks at a time; at least one time."""
        at_once = max(1, _PIXELS_AT_ONCE[self._device.type] // (height * width))
        for some in torch.split(logits[:, None], at_once):
            yield F.interpolate(some.float(), (height, width), mode="bilinear", align_corners=False)[:, 0]

    def _regions(self, kept: _Candidates, height: int, width: int) -> list[Region]:
        rles = [rle for some in self._full_size(kept.logits, height, width) for rle in _encode(some > 0)]
        facts = (kept.boxes, kept.areas, kept.predicted_iou, kept.stability)
        boxes, areas, predicted, stability = (fact.tolist() for fact in facts)
        rows = zip(rles, boxes, areas, predicted, stability, strict=True)
        return [
            Region(rle, Box(x0, y0, x1 + 1, y1 + 1), area, iou, stable)
            for rle, (x0, y0, x1, y1), area, iou, stable in rows
        ]


def _join(parts: Sequence[_Candidates]) -> _Candidates:
    return _Candidates(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.predicted_iou for part in parts]),
        torch.cat([part.stability for part in parts]),
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.areas for part in parts]),
    )


def _cut(logits: Tensor, offset: float) -> tuple[Tensor, Tensor]:
    """(m,) pixels above +offset and (m,) pixels above -offset, float32; their quotient is the stability."""
    return _area(logits, offset).float(), _area(logits, -offset).float()


def _area(logits: Tensor, cut: float) -> Tensor:
    """(m,) int64: the pixels of each of (m, h, w) masks where the logits are above `cut`."""
    if logits.device.type != "cpu":
        return (logits > cut).sum(dim=(1, 2))
    # Torch would copy the comparison as int64 before it adds; NumPy counts bytes, a mask at a time in cache.
    counts = [np.count_nonzero(mask > cut) for mask in logits.float().numpy()]
    return torch.tensor(counts, dtype=torch.int64)


def _boxes(masks: Tensor) -> Tensor:
    """(m, 4): first column and row, last column and row of (m, h, w) bool masks; without meaning if empty."""
    first, last = [], []
    for within in (1, 2):  # columns, rows
        hit = masks.view(torch.uint8).amax(dim=within) > 0  # many times as fast as any() on a CPU
        places = torch.arange(hit.shape[1], device=masks.device)
        first.append(torch.where(hit, places, hit.shape[1]).amin(dim=1))
        last.append(torch.where(hit, places, -1).amax(dim=1))
    return torch.stack(first + last, dim=1)


def _encode(masks: Tensor) -> Iterator[Rle]:
    """The RLE of each of (m, h, w) bool masks; only the places where a run ends leave the device."""
    count, height, width = masks.shape
    columns = masks.mT.flatten(1)  # column by column, as COCO's runs go
    before = F.pad(columns, (1, 0))[:, :-1]  # as if a zero stood before the first: runs begin with zeros
    which, where = (columns != before).nonzero().T.cpu().numpy()
    bounds = np.searchsorted(which, np.arange(count + 1))
    for begin, end in pairwise(bounds):
        runs = np.diff(where[begin:end], prepend=0, append=height * width)
        packed = coco.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
        yield Rle(height, width, packed["counts"])
