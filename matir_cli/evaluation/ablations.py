"""Ablations: the method with one setting changed at a time.

Another prompt set, transform or set of regions changes stage 1: it searches with other query
vectors, within other regions, or in a gallery of its own that holds other vectors for the same
regions. The judge's stored answers serve all of these. The other ablations change stage 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np

from matir_cli.engines.clip.options import SEVEN_PROMPTS, ClipOptions
from matir_cli.engines.options import read_options
from matir_cli.engines.qwen_vl.options import GroundingWay, QwenVlOptions
from matir_cli.engines.registry import JUDGE_OPTIONS, load_region_encoder, load_text_encoder
from matir_cli.evaluation import metrics
from matir_cli.evaluation.methods import Directions, EvaluationSetup, Method, run_stage_1
from matir_cli.evaluation.names import Ablation
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.region_copy import open_region_copy, photos_with_vectors
from matir_cli.model_sets.catalogue import ModelSet
from matir_cli.photos.decode import decode_photo
from matir_cli.photos.discover import stat_file
from matir_cli.progress import ProgressObserver
from matir_cli.records import EngineConfig
from matir_cli.search.encoding import EncodedQuery, match_directions
from matir_cli.search.filters import Filters
from matir_cli.search.index import seal_index, store_vectors

PROMPTS = {
    "the query alone": ("{}",),
    "a photo of a {}.": ("a photo of a {}.",),
    "CLIP's seven": SEVEN_PROMPTS,
}
"""Prompt sets by the name they have in the table."""

TRANSFORMS = ("letterbox", "squash", "crop")
"""Ways to make a photo square for the encoder."""

CANDIDATES = (25, 50, 100, 200)
"""Values of N_C."""

KEEP = (10, 25, 50)
"""Values of N_K."""

FUSION = (3.0, 10.0, 30.0, 100.0)
"""Values of lambda; stage 1's cosines differ by hundredths, the judge's margins by units."""

PIXELS: tuple[float, ...] = (0.25, 0.5)
"""Shares of the judge's `max_pixels`."""

GROUND_PIXELS: tuple[float, ...] = (0.5, 0.8, 1.0)
"""Values of `ground_min_pixels`, as shares of the judge's `max_pixels`; 0.8 of 1280 tokens are 1024."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The method with one setting changed."""

    ablation: Ablation
    setting: str
    """The value of the setting, as the table names it."""
    method: Method


@dataclass(frozen=True, slots=True)
class AblationRunner:
    """Runs stage 1 of ablations and makes their variants of the method."""

    setup: EvaluationSetup
    encoder: EngineConfig
    """The encoder that the gallery was made with."""
    folder: Path
    """Folder of the galleries with other vectors."""
    device: str
    """Device that encoders run on."""
    progress: ProgressObserver

    def variants(self, ablation: Ablation, base: Method) -> Iterator[Variant]:
        """All settings of an ablation except the one that `base` has.

        Nothing for `JUDGE_ABLATIONS`, whose variants need a judge of their own; see `other_judges`.
        """
        match ablation:
            case "prompts":
                own_prompts = self._options().prompts
                for name, prompts in PROMPTS.items():
                    if prompts != own_prompts:
                        yield Variant(ablation, name, self._with_prompts(prompts, base))
            case "transform":
                own_transform = self._options().transform
                for transform in TRANSFORMS:
                    if transform != own_transform:
                        yield Variant(ablation, transform, self._with_transform(transform, base))
            case "whole-photo":
                yield Variant(ablation, "off", self._without_whole_photo(base))
            case "candidates":
                for count in CANDIDATES:
                    if count != base.candidates:
                        yield Variant(ablation, str(count), replace(base, candidates=count))
            case "keep":
                for count in KEEP:
                    if count != base.keep:
                        yield Variant(ablation, str(count), replace(base, keep=count))
            case "fusion":
                for weight in FUSION:
                    yield Variant(ablation, f"{weight:g}", replace(base, fusion=weight))
            case "match":
                yield Variant(ablation, "joint", replace(base, directions=self._directions()))
            case "pixels" | "ground-pixels" | "grounding":
                return

    def base_setting(self, ablation: Ablation, base: Method) -> str:
        """The setting that `base` has, as the table names it."""
        match ablation:
            case "prompts":
                own = self._options().prompts
                return next((name for name, prompts in PROMPTS.items() if prompts == own), " | ".join(own))
            case "transform":
                return self._options().transform
            case "whole-photo":
                return "on"
            case "candidates":
                return str(base.candidates)
            case "keep":
                return str(base.keep)
            case "fusion":
                return "0"
            case "match":
                return "iou"
            case "pixels" | "ground-pixels" | "grounding":
                return "as set"

    def _directions(self) -> Directions:
        """The direction of each query as a whole, since the base method does not split it."""
        encoder, gallery = load_text_encoder(self.encoder), self.setup.gallery
        encoded = {query.id: encoder.encode(query.text) for query in self.setup.queries}
        return {
            query: match_directions(gallery, EncodedQuery(each.vector[np.newaxis], each.truncated))
            for query, each in encoded.items()
        }

    def _options(self) -> ClipOptions:
        return read_options(self.encoder.options, ClipOptions, self.encoder.engine)

    def _encoder_with(self, name: str, value: object) -> EngineConfig:
        return replace(self.encoder, options={**self.encoder.options, name: value})

    def _with_prompts(self, prompts: tuple[str, ...], base: Method) -> Method:
        return self._search_again(self.setup.gallery, self._encoder_with("prompts", list(prompts)), base)

    def _with_transform(self, transform: str, base: Method) -> Method:
        config = self._encoder_with("transform", transform)
        with open_region_copy(self.setup.gallery, self.folder / f"transform-{transform}.db") as copy:
            self._encode_regions(copy, config)
            return self._search_again(copy, config, base)

    def _without_whole_photo(self, base: Method) -> Method:
        return self._search_again(self.setup.gallery, self.encoder, base, Filters(whole=False))

    def _search_again(
        self, gallery: GalleryFile, config: EngineConfig, base: Method, filters: Filters | None = None
    ) -> Method:
        """The method with another stage 1."""
        encoder = load_text_encoder(config)
        depth = candidates_needed(base.candidates, ())
        return replace(base, stage_1=run_stage_1(self.setup, gallery, encoder, depth, self.progress, filters))

    def _encode_regions(self, copy: GalleryFile, config: EngineConfig) -> None:
        """Compute and store the vectors of the images' regions, photo by photo; stored ones are kept."""
        missing = sorted(set(self.setup.image_index.images) - photos_with_vectors(copy))
        if not missing:
            return
        encoder = load_region_encoder(config, self.device)
        with self.progress("encoding", len(missing), "photo") as advance:
            for photo_id in missing:
                regions = self.setup.gallery.regions(photo_id)
                digest = self.setup.gallery.photo(photo_id).record.sha256
                photo = decode_photo(stat_file(self.setup.image_index.files[photo_id]), digest)
                vectors = encoder.encode(photo.image, [stored.region.rle for stored in regions])
                with copy.atomic():
                    store_vectors(copy, photo_id, [stored.id for stored in regions], vectors)
                advance()
        seal_index(copy)


def candidates_needed(candidates: int, ablations: Sequence[Ablation]) -> int:
    """Number of photos that stage 1 has to rank for N_C = `candidates` and for the ablations."""
    return max(metrics.DEPTH, candidates, *(CANDIDATES if "candidates" in ablations else ()))


def other_judges(models: ModelSet, ablation: Ablation) -> Iterator[tuple[str, ModelSet]]:
    """Settings of an ablation of the judge: a name, and the set with a judge that has another option.

    Args:
        ablation: one of `JUDGE_ABLATIONS`.
    """
    judge = models.part("judge")
    own = read_options(judge.options, JUDGE_OPTIONS[judge.engine], judge.engine)
    values: dict[str, object]
    match ablation:
        case "pixels":
            option, values = "max_pixels", _pixels(own, PIXELS)
        case "ground-pixels":
            option, values = "ground_min_pixels", _pixels(own, GROUND_PIXELS)
        case _:
            option, values = "grounding", {name: name for name in get_args(GroundingWay)}
    for name, value in values.items():
        if value == getattr(own, option):
            continue
        changed = msgspec.structs.replace(judge, options={**judge.options, option: value})
        parts = tuple(changed if part is judge else part for part in models.parts)
        yield name, msgspec.structs.replace(models, parts=parts)


def _pixels(own: QwenVlOptions, shares: Sequence[float]) -> dict[str, object]:
    """Return sizes by their names; shares of `max_pixels` that `min_pixels` makes equal are one."""
    pixels = dict.fromkeys(max(round(share * own.max_pixels), own.min_pixels) for share in shares)
    return {f"{number} pixels": number for number in pixels}
