"""SAM 2 as region proposer: a grid of point prompts, filtered and deduplicated.

Each point gives three masks. The result is that of upstream's `SAM2AutomaticMaskGenerator`
(facebookresearch/sam2, sam2/automatic_mask_generator.py) with one crop, with the expensive steps last:

1. drop masks by predicted IoU, before any mask is computed;
2. drop clearly unstable masks, on the low-resolution logits;
3. compute stability, area and box of the others at full size, and drop the unstable;
4. non-maximum suppression (NMS) of boxes;
5. if the options say so, drop masks that repeat others, very small and very large ones, and the worst;
6. run-length encoding of the masks that are left.

With `points = "adaptive"`, steps 1 to 4 run for some points of the grid at a time, see `adaptive`.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it
from torchvision.ops import nms

from matir_cli.engines.batches import BatchRunner
from matir_cli.engines.cores import run_on_cores
from matir_cli.engines.device import ThreadStreams, choose_dtype, move
from matir_cli.engines.options import read_options
from matir_cli.engines.sam2.adaptive import PointChooser
from matir_cli.engines.sam2.decoder import EncodedImage, PromptDecoder
from matir_cli.engines.sam2.model import load_model
from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.records import Box, EngineConfig, ImageArray, Point, Region, Rle

_log = logging.getLogger(__name__)

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's mean and standard deviation of RGB values in 0..1."""

_TOKENS_PER_BATCH = {"cuda": 1 << 18, "mps": 1 << 16, "cpu": 1 << 13}
"""Image tokens in a batch of points if `points_per_batch` is not set; a point at 1024 pixels has 4096.

Large enough to keep a GPU busy, small enough for a CPU's cache (measured with Hiera-T).
"""

_WORTH_A_CORE = 1024
"""Image tokens from which on a batch of points keeps a core busy; with fewer, threads hinder each other."""

_PIXELS_AT_ONCE = {"cuda": 1 << 28, "mps": 1 << 26, "cpu": 1 << 20}
"""Pixels of full-size logits, of 4 bytes each, in memory at a time."""

_SLACK = 1.5
"""Margin of the stability filter at low resolution, in square roots of the mask's pixels.

A mask is computed at full size if that many more inner pixels would make it stable. Of 6,500 masks of a
trained model that are stable at full size, at thresholds from 0.5 to 0.9, one needs a larger margin.
"""

_REPEATED = 0.9
"""IoU from which on a mask repeats an earlier one."""

_QUIET_ROUNDS = 2
"""Rounds in a row that bring nothing but repeated masks after which no more points are asked."""

_FOREGROUND, _TOP_LEFT, _BOTTOM_RIGHT = 1, 2, 3
"""Labels of the prompt encoder for a point on the object and for the corners of a box."""


def load_sam2_proposer(config: EngineConfig, device: str) -> "Sam2Proposer":
    """Load the proposer of `config` onto `device` ("cuda", "mps" or "cpu").

    Raises:
        ModelSetInvalid: an option is invalid.
        CheckpointInvalid: the file "checkpoint" does not hold the model that the options describe.
    """
    options = read_options(config.options, Sam2Options, "sam2")
    return Sam2Proposer(load_model(options, config.files["checkpoint"]), options, device)


_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _MaskBatch:
    """Masks of one image, one per row."""

    logits: Tensor
    """(m, s / 4, s / 4), at the decoder's resolution."""
    predicted_iou: Tensor
    """(m,)."""
    stability: Tensor
    """(m,), at full size."""
    boxes: Tensor
    """(m, 4): first column and row, last column and row, both inclusive, as in upstream's NMS."""
    areas: Tensor
    """(m,), in pixels at full size."""

    def __getitem__(self, rows: Tensor) -> "_MaskBatch":
        boxes, areas = self.boxes[rows], self.areas[rows]
        return _MaskBatch(self.logits[rows], self.predicted_iou[rows], self.stability[rows], boxes, areas)


class Sam2Proposer:
    """Fulfils `protocols.RegionProposer`."""

    def __init__(self, model: SAM2Base, options: Sam2Options, device: str) -> None:
        """Move `model` to `device`; it must be in evaluation mode, and its weights must not change later."""
        self._options = options
        self._device = torch.device(device)
        self._dtype = _choose_dtype(model, options, device)
        on_cuda = self._device.type == "cuda"  # where the decoder computes in this dtype, too
        self._decoder = PromptDecoder(model.to(self._device), torch.float32 if on_cuda else self._dtype)
        tokens = model.sam_image_embedding_size**2
        self._points = BatchRunner(options.points_per_batch or _TOKENS_PER_BATCH[self._device.type] // tokens)
        self._on_cores = self._device.type == "cpu" and tokens >= _WORTH_A_CORE
        self._pixels = BatchRunner(_PIXELS_AT_ONCE[self._device.type])
        self._streams = ThreadStreams(self._device)
        self._of_thread = threading.local()

    @property
    def prompts_asked(self) -> int:
        """See `RegionProposer.prompts_asked`."""
        count: int = getattr(self._of_thread, "prompts_asked", 0)
        return count

    def _count(self, prompts: int) -> None:
        """Add to `prompts_asked`."""
        self._of_thread.prompts_asked = self.prompts_asked + prompts

    def propose(self, image: ImageArray) -> list[Region]:
        """Return regions of `image` ((h, w, 3) uint8 RGB) in its own pixels, highest predicted IoU first.

        The number of points asked and of masks is logged at DEBUG.

        Raises:
            EngineFailed: the device has not enough memory for the image, or for one point at a time.
        """
        height, width, _ = image.shape
        with torch.inference_mode(), self._precision(), self._streams.enter():
            points = self._point_grid()
            encoded = self._encode(image)
            if self._options.points == "grid":
                asked, found = len(points), self._suppress(self._ask(encoded, points, height, width))
            else:
                asked, found = self._ask_adaptively(encoded, points, height, width)
            self._count(asked)
            kept = self._reduce(found, height, width)
            counts = (asked, len(points), len(kept.areas), len(found.areas))
            _log.debug("asked %d of %d points, kept %d of %d masks", *counts)
            return self._to_regions(kept, height, width)

    def refine(self, image: ImageArray, boxes: Sequence[Box]) -> list[Region | None]:
        """Return SAM 2's region for each box, in pixels of `image` ((h, w, 3) uint8 RGB).

        The image is encoded once. None for a box in which SAM 2 finds nothing.
        """
        if not boxes:
            return []
        height, width, _ = image.shape
        scale = self._options.image_size / np.array([width, height])
        corners = np.array([((b.x0, b.y0), (b.x1, b.y1)) for b in boxes]) * scale
        prompts = torch.from_numpy(corners.astype(np.float32)).to(self._device)

        def decode_batch(batch: slice) -> list[Region]:
            corners = prompts[batch]
            labels = torch.tensor([_TOP_LEFT, _BOTTOM_RIGHT], device=self._device).expand(len(corners), 2)
            decoded = self._decoder.decode(encoded, corners, labels)
            logits, predicted_iou = self._decoder.single_mask_logits(encoded, decoded)
            return self._to_regions(self._measure(logits, predicted_iou, height, width), height, width)

        with torch.inference_mode(), self._precision():
            encoded = self._encode(image)
            batches = list(self._points.run(len(prompts), decode_batch))
        self._count(len(boxes))
        return [region if region.area else None for regions in batches for region in regions]

    def region_at(self, image: ImageArray, point: Point) -> Region | None:
        """Return the best of SAM 2's three masks at `point`, in pixels of `image` ((h, w, 3) uint8 RGB).

        The best is the one with the highest predicted IoU, as upstream recommends for a single point. None
        if that mask is empty.
        """
        height, width, _ = image.shape
        side = self._options.image_size
        prompt = torch.tensor([[[point.x * side / width, point.y * side / height]]], device=self._device)
        with torch.inference_mode(), self._precision():
            encoded = self._encode(image)
            labels = torch.full((1, 1), _FOREGROUND, device=self._device)
            decoded = self._decoder.decode(encoded, prompt, labels)
            keep = torch.zeros_like(decoded.predicted_iou, dtype=torch.bool)
            keep[0, 1 + decoded.predicted_iou[0, 1:].argmax()] = True
            logits = self._decoder.mask_logits(encoded, decoded, keep)
            best = self._measure(logits, decoded.predicted_iou[keep], height, width)
            (region,) = self._to_regions(best, height, width)
        self._count(1)
        return region if region.area else None

    def _precision(self) -> AbstractContextManager[object]:
        """Return a context for the whole model: bfloat16 on CUDA, as in upstream's examples, else float32."""
        if self._device.type == "cuda" and self._dtype == torch.bfloat16:
            return torch.autocast("cuda", dtype=self._dtype)
        return nullcontext()

    def _encode(self, image: ImageArray) -> EncodedImage:
        """Resize `image` to the model's square, without keeping its aspect ratio, normalise and encode it."""
        (encoded,) = BatchRunner(1).run(1, lambda _: self._encode_square(image))
        return encoded

    def _encode_square(self, image: ImageArray) -> EncodedImage:
        """See `_encode`; torch's own error if the device runs out of memory."""
        pixels = torch.from_numpy(np.array(image))  # a copy: torch needs a writable array
        if self._device.type == "cuda":  # before the resize; MPS may lack it with antialiasing
            pixels = move(pixels, self._device)
        pixels = pixels.permute(2, 0, 1)[None].float() / 255
        side = self._options.image_size
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=True)
        mean, std = pixels.new_tensor(_MEAN), pixels.new_tensor(_STD)
        normalised = (pixels - mean[:, None, None]) / std[:, None, None]
        return self._decoder.encode(normalised.to(self._device))

    def _point_grid(self) -> Tensor:
        """Return (points_per_side^2, 1, 2) float32: x and y of the points in the square, row by row."""
        count = self._options.points_per_side
        along = (torch.arange(count, dtype=torch.float32) + 0.5) * (self._options.image_size / count)
        y, x = torch.meshgrid(along, along, indexing="ij")
        return torch.stack([x, y], dim=-1).view(-1, 1, 2).to(self._device)

    def _ask(self, encoded: EncodedImage, points: Tensor, height: int, width: int) -> _MaskBatch:
        """Return the likely and stable masks of `points` ((p, 1, 2) float32, in pixels of the square)."""

        def decode(points: Tensor) -> list[_MaskBatch]:
            def decode_batch(batch: slice) -> _MaskBatch:
                return self._select_stable(*self._decode_likely(encoded, points[batch]), height, width)

            return list(self._points.run(len(points), decode_batch))

        if not self._on_cores:
            return _join(decode(points))
        return _join(list(chain.from_iterable(run_on_cores(torch.split(points, self._points.size), decode))))

    def _ask_adaptively(
        self, encoded: EncodedImage, points: Tensor, height: int, width: int
    ) -> tuple[int, _MaskBatch]:
        """Ask some of the grid's `points`; return their number, and the masks after suppression."""
        features = self._decoder.features_at(encoded, points[:, 0])
        chooser = PointChooser(self._options.points_per_side, features.float().cpu().numpy())
        stable = self._ask(encoded, points[chooser.start()], height, width)
        kept = self._suppress(stable)
        quiet = 0
        while quiet < _QUIET_ROUNDS:
            chosen = chooser.next_round(self._covered(stable, points).cpu().numpy())
            if not len(chosen):
                break
            stable, known = _join([stable, self._ask(encoded, points[chosen], height, width)]), kept
            kept = self._suppress(stable)
            quiet = quiet + 1 if _repeat(kept, known) else 0
        return chooser.asked, kept

    def _suppress(self, masks: _MaskBatch) -> _MaskBatch:
        """Return the masks that are left after NMS of their boxes, highest predicted IoU first."""
        return masks[nms(masks.boxes.float(), masks.predicted_iou.float(), self._options.nms_threshold)]

    def _reduce(self, masks: _MaskBatch, height: int, width: int) -> _MaskBatch:
        """Return the masks that are worth a pass of the encoder, by the options, in the same order."""
        options = self._options
        share = masks.areas / (height * width)
        masks = masks[(share >= options.min_area) & (share <= options.max_area)]
        if options.repeat_threshold is not None and len(masks.areas):
            masks = masks[_distinct(_overlaps(masks, masks).cpu().numpy() >= options.repeat_threshold)]
        if options.max_regions is not None:
            order = (masks.predicted_iou.float() * masks.stability).argsort(descending=True, stable=True)
            masks = masks[order[: options.max_regions].sort().values]
        return masks

    def _covered(self, masks: _MaskBatch, points: Tensor) -> Tensor:
        """Return (m, p) bool: True where a mask contains one of (p, 1, 2) points, at low resolution."""
        side = masks.logits.shape[-1]
        columns, rows = (points[:, 0] * (side / self._options.image_size)).long().unbind(dim=1)
        return masks.logits[:, rows, columns] > 0

    def _decode_likely(self, encoded: EncodedImage, points: Tensor) -> tuple[Tensor, Tensor]:
        """Decode `points`; return logits (m, s / 4, s / 4) and predicted IoU (m,) above the threshold."""
        labels = torch.full((len(points), 1), _FOREGROUND, device=self._device)
        decoded = self._decoder.decode(encoded, points, labels)
        keep = decoded.predicted_iou > self._options.predicted_iou_threshold
        keep[:, 0] = False  # the single-answer mask
        return self._decoder.mask_logits(encoded, decoded, keep), decoded.predicted_iou[keep]

    def _select_stable(self, logits: Tensor, predicted_iou: Tensor, height: int, width: int) -> _MaskBatch:
        """Return the masks that are stable at full size and not empty."""
        threshold, offset = self._options.stability_threshold, self._options.stability_offset
        inner, outer = _stability_areas(logits, offset)
        likely = (inner + _SLACK * outer.sqrt() >= threshold * outer) & (outer > 0)
        measured = self._measure(logits[likely], predicted_iou[likely], height, width)
        return measured[(measured.stability >= threshold) & (measured.areas > 0)]

    def _measure(self, logits: Tensor, predicted_iou: Tensor, height: int, width: int) -> _MaskBatch:
        """Compute stability, box and area of masks at full size."""

        def measure_batch(full: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            inner, outer = _stability_areas(full, self._options.stability_offset)
            return inner / outer, _boxes(full > 0), _area(full, 0.0)

        measured = self._run_at_full_size(logits, height, width, measure_batch)
        stability, boxes, areas = (torch.cat(column) for column in zip(*measured, strict=True))
        return _MaskBatch(logits, predicted_iou, stability, boxes, areas)

    def _run_at_full_size(
        self, logits: Tensor, height: int, width: int, work: Callable[[Tensor], _Result]
    ) -> list[_Result]:
        """Return the results of `work` for the logits at full size, (k, height, width) for k at a time."""

        def run_batch(batch: slice) -> _Result:
            low = logits[batch, None].float()
            return work(F.interpolate(low, (height, width), mode="bilinear", align_corners=False)[:, 0])

        if not len(logits):
            return [work(logits.new_zeros((0, height, width)))]
        return list(self._pixels.run(len(logits), run_batch, cost=height * width))

    def _to_regions(self, kept: _MaskBatch, height: int, width: int) -> list[Region]:
        """Convert masks to regions: RLEs at full size, boxes with exclusive maximum."""
        batches = self._run_at_full_size(
            kept.logits, height, width, lambda full: list(_encode_rles(full > 0))
        )
        rles = [rle for batch in batches for rle in batch]
        columns = (kept.boxes, kept.areas, kept.predicted_iou, kept.stability)
        boxes, areas, predicted, stability = (column.tolist() for column in columns)
        rows = zip(rles, boxes, areas, predicted, stability, strict=True)
        return [
            Region(rle, Box(x0, y0, x1 + 1, y1 + 1), area, iou, stable)
            for rle, (x0, y0, x1, y1), area, iou, stable in rows
        ]


def _choose_dtype(model: SAM2Base, options: Sam2Options, device: str) -> torch.dtype:
    """Return the dtype of the matrix products, see `Sam2Options.precision`."""
    width: int = model.image_encoder.trunk.channel_list[0]
    dtype = choose_dtype(options.precision, device, width)
    if dtype == torch.float16:  # that of CLIP on CUDA
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return dtype


def _join(parts: Sequence[_MaskBatch]) -> _MaskBatch:
    """Concatenate the rows of `parts`."""
    return _MaskBatch(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.predicted_iou for part in parts]),
        torch.cat([part.stability for part in parts]),
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.areas for part in parts]),
    )


def _repeat(masks: _MaskBatch, known: _MaskBatch) -> bool:
    """Return True if each of `masks` nearly equals one of `known`."""
    if not len(masks.areas) or not len(known.areas):
        return not len(masks.areas)
    return bool((_overlaps(masks, known) >= _REPEATED).any(dim=1).all())


def _overlaps(left: _MaskBatch, right: _MaskBatch) -> Tensor:
    """Return the (len(left), len(right)) IoU of masks at low resolution; 0 if both are empty there."""
    ours, theirs = ((batch.logits > 0).flatten(1).float() for batch in (left, right))
    with torch.autocast(ours.device.type, enabled=False):  # bfloat16 cannot count pixels
        shared = ours @ theirs.T
    return shared / (ours.sum(dim=1)[:, None] + theirs.sum(dim=1) - shared).clamp(min=1)


def _distinct(repeats: NDArray[np.bool_]) -> Tensor:
    """Return the rows to keep of an (m, m) table of masks that repeat each other, best mask first."""
    kept: list[int] = []
    for row, repeated in enumerate(repeats):
        if not repeated[kept].any():
            kept.append(row)
    return torch.tensor(kept, dtype=torch.int64)


def _stability_areas(logits: Tensor, offset: float) -> tuple[Tensor, Tensor]:
    """Return (m,) float32 pixel counts above +offset and above -offset; their quotient is the stability."""
    return _area(logits, offset).float(), _area(logits, -offset).float()


def _area(logits: Tensor, threshold: float) -> Tensor:
    """Return (m,) int64: number of pixels of each of (m, h, w) masks with logits above `threshold`."""
    if logits.device.type != "cpu":
        return (logits > threshold).sum(dim=(1, 2))
    # Torch would convert the comparison to int64 before it adds; NumPy counts bytes, mask by mask in cache.
    counts = [np.count_nonzero(mask > threshold) for mask in logits.float().numpy()]
    return torch.tensor(counts, dtype=torch.int64)


def _boxes(masks: Tensor) -> Tensor:
    """Return (m, 4): first column and row, last column and row of (m, h, w) bool masks; any if empty."""
    first, last = [], []
    for axis in (1, 2):  # reduced over rows: columns; over columns: rows
        occupied = masks.view(torch.uint8).amax(dim=axis) > 0  # many times as fast as any() on a CPU
        indices = torch.arange(occupied.shape[1], device=masks.device)
        first.append(torch.where(occupied, indices, occupied.shape[1]).amin(dim=1))
        last.append(torch.where(occupied, indices, -1).amax(dim=1))
    return torch.stack(first + last, dim=1)


def _encode_rles(masks: Tensor) -> Iterator[Rle]:
    """Yield the RLE of each of (m, h, w) bool masks; only the positions of run ends leave the device."""
    count, height, width = masks.shape
    columns = masks.mT.flatten(1)  # column-major, as in COCO's RLE
    before = F.pad(columns, (1, 0))[:, :-1]  # preceded by a zero: the first run is of zeros
    mask_indices, positions = (columns != before).nonzero().T.cpu().numpy()
    bounds = np.searchsorted(mask_indices, np.arange(count + 1))
    for begin, end in pairwise(bounds):
        runs = np.diff(positions[begin:end], prepend=0, append=height * width)
        packed = coco.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
        yield Rle(height, width, packed["counts"])
