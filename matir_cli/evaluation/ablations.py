"""One setting of the method changed at a time.

Another prompt set, transform or set of regions changes stage 1: it searches with other query
vectors, within other regions, or in a gallery of its own that has other vectors for the same
regions; the judge's memory serves them all. The others change stage 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from matir_cli.engines.clip.options import SEVEN_PROMPTS, ClipOptions
from matir_cli.engines.options import read_options
from matir_cli.engines.qwen_vl.options import QwenVlOptions
from matir_cli.engines.registry import load_region_encoder, load_text_encoder
from matir_cli.errors import GalleryBusy
from matir_cli.evaluation import metrics
from matir_cli.evaluation.methods import EvaluationSetup, Method, run_stage_1
from matir_cli.evaluation.names import Ablation
from matir_cli.gallery.database import GalleryFile
from matir_cli.model_sets.catalogue import ModelSet
from matir_cli.photos.decode import decode_photo
from matir_cli.photos.discover import stat_file
from matir_cli.progress import ProgressObserver
from matir_cli.records import EngineConfig
from matir_cli.search.filters import Filters
from matir_cli.search.index import seal_index, store_vectors

PROMPTS = {
    "the query alone": ("{}",),
    "a photo of a {}.": ("a photo of a {}.",),
    "CLIP's seven": SEVEN_PROMPTS,
}

TRANSFORMS = ("letterbox", "squash", "crop")

CANDIDATES = (25, 50, 100, 200)

KEEP = (10, 25, 50)

FUSION = (3.0, 10.0, 30.0, 100.0)
"""lambda; cosines of stage 1 differ by hundredths, margins by units."""

PIXELS = (0.25, 0.5)
"""Parts of the judge's `max_pixels`."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The method with one setting changed."""

    ablation: Ablation
    setting: str
    method: Method


@dataclass(frozen=True, slots=True)
class AblationRunner:
    """What ablations are made with."""

    bench: EvaluationSetup
    encoder: EngineConfig
    """The gallery's own."""
    folder: Path
    """Galleries with other vectors are kept here."""
    device: str
    progress: ProgressObserver

    def variants(self, ablation: Ablation, base: Method) -> Iterator[Variant]:
        """The settings of one ablation but for the one that `base` has; for "pixels" see below."""
        match ablation:
            case "prompts":
                own = self._options().prompts
                for name, prompts in PROMPTS.items():
                    if prompts != own:
                        yield Variant(ablation, name, self._prompted(prompts, base))
            case "transform":
                own_transform = self._options().transform
                for transform in TRANSFORMS:
                    if transform != own_transform:
                        yield Variant(ablation, transform, self._transformed(transform, base))
            case "whole-photo":
                yield Variant(ablation, "off", self._without_whole(base))
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
            case "pixels":
                return

    def own_setting(self, ablation: Ablation, base: Method) -> str:
        """The setting that `base` has."""
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
            case "pixels":
                return "as set"

    def _options(self) -> ClipOptions:
        return read_options(self.encoder.options, ClipOptions, self.encoder.engine)

    def _changed(self, name: str, value: object) -> EngineConfig:
        return replace(self.encoder, options={**self.encoder.options, name: value})

    def _prompted(self, prompts: tuple[str, ...], base: Method) -> Method:
        return self._searched(self.bench.gallery, self._changed("prompts", list(prompts)), base)

    def _transformed(self, transform: str, base: Method) -> Method:
        config = self._changed("transform", transform)
        with copy_gallery(self.bench.gallery, self.folder / f"transform-{transform}.db") as twin:
            self._encode(twin, config)
            return self._searched(twin, config, base)

    def _without_whole(self, base: Method) -> Method:
        return self._searched(self.bench.gallery, self.encoder, base, Filters(whole=False))

    def _searched(
        self, gallery: GalleryFile, config: EngineConfig, base: Method, within: Filters | None = None
    ) -> Method:
        encoder = load_text_encoder(config)
        found = run_stage_1(
            self.bench, gallery, encoder, candidates_needed(base.candidates, ()), self.progress, within
        )
        return replace(base, retrieved=found)

    def _encode(self, twin: GalleryFile, config: EngineConfig) -> None:
        """Give the regions of the images their vectors, photo by photo; those that have them keep them."""
        done = twin.connection.execute("select distinct photo_id from vectors")
        missing = sorted(set(self.bench.indexed.images) - {int(photo_id) for (photo_id,) in done})
        if not missing:
            return
        encoder = load_region_encoder(config, self.device)
        with self.progress("encoding", len(missing), "photo") as advance:
            for photo_id in missing:
                regions = self.bench.gallery.regions(photo_id)
                digest = self.bench.gallery.photo(photo_id).record.sha256
                photo = decode_photo(stat_file(self.bench.indexed.files[photo_id]), digest)
                rows = encoder.encode(photo.image, [stored.region.rle for stored in regions])
                with twin.atomic():
                    store_vectors(twin, photo_id, [stored.id for stored in regions], rows)
                advance()
        seal_index(twin)


@contextmanager
def copy_gallery(gallery: GalleryFile, path: Path) -> Iterator[GalleryFile]:
    """The gallery at `path` with the photos and regions of `gallery`, ids included, and vectors of its own.

    It is made anew where it is not of the same photos, indexed with the same models. `gallery` is
    attached to it as "source".
    """
    for _ in range(2):
        with GalleryFile.open(path, create=True) as twin:
            twin.connection.execute("attach ? as source", (str(gallery.path),))
            if twin.count_photos() == 0:
                with twin.atomic():
                    for table in ("models", "photos", "regions"):
                        twin.connection.execute(f"insert into main.{table} select * from source.{table}")  # noqa: S608
            if not twin.connection.execute(_DIFFERENCE).get:
                yield twin
                return
        path.unlink()
    raise GalleryBusy(gallery.path)  # somebody else changes it all the time


_DIFFERENCE = """
    select (select group_concat(role || weight_hash) from main.models)
            is not (select group_concat(role || weight_hash) from source.models)
        or exists (select id, sha256 from main.photos except select id, sha256 from source.photos)
        or exists (select id, sha256 from source.photos except select id, sha256 from main.photos)
        or exists (select id, photo_id from main.regions except select id, photo_id from source.regions)
        or exists (select id, photo_id from source.regions except select id, photo_id from main.regions)
"""


def candidates_needed(candidates: int, chosen: Sequence[Ablation]) -> int:
    """How far stage 1 has to rank for N_C `candidates` and the ablations."""
    return max(metrics.DEPTH, candidates, *(CANDIDATES if "candidates" in chosen else ()))


def with_other_pixels(models: ModelSet) -> Iterator[tuple[str, ModelSet]]:
    """The model set with judges that look at smaller images, and what to call each."""
    judge = models.part("judge")
    own = read_options(judge.options, QwenVlOptions, judge.engine)
    # Shares that the least size makes alike are one setting.
    for pixels in dict.fromkeys(max(round(share * own.max_pixels), own.min_pixels) for share in PIXELS):
        changed = msgspec.structs.replace(judge, options={**judge.options, "max_pixels": pixels})
        parts = tuple(changed if part is judge else part for part in models.parts)
        yield f"{pixels} pixels", msgspec.structs.replace(models, parts=parts)
