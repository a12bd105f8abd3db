"""The engines of a model set for one gallery, each loaded when first used."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from matir_cli.engines.protocols import Judge, RegionEncoder, RegionProposer, TextEncoder
from matir_cli.engines.registry import (
    has_own_processor,
    identify_config,
    load_judge,
    load_proposer,
    load_region_encoder,
    load_text_encoder,
    proposals_at_once,
)
from matir_cli.errors import ModelMismatch, WeightsMissing
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.union import GalleryReader
from matir_cli.model_sets.catalogue import ModelSet
from matir_cli.model_sets.choice import record_choice
from matir_cli.model_sets.presets import naming_presets
from matir_cli.model_sets.weights import locate_files
from matir_cli.records import EngineConfig, MatchRule

INDEXING_PARTS = ("proposer", "encoder")
"""Parts that index photos; a gallery is bound to one model of each."""


def locate_part(models: ModelSet, part: str) -> EngineConfig:
    """Locate a part's files; the identity covers everything that the part's results depend on.

    Raises:
        PartMissing: the set has no such part.
        WeightsMissing, WeightsChanged: files are missing, or have changed.
        ModelSetInvalid: the part's settings are invalid.
    """
    return identify_config(locate_files(models, part))


def check_indexing_weights(models: ModelSet, gallery: Path) -> None:
    """Check that the models that index photos are present before the file `gallery` is created.

    An existing gallery is not checked here: `ModelSession.bind` compares it with the models.

    Raises:
        PartMissing, WeightsMissing, WeightsChanged: a model is missing, or its files have changed.
    """
    if not gallery.exists():
        for part in INDEXING_PARTS:
            locate_part(models, part)


class ModelSession:
    """The loaded engines of a model set; the first access to a part locates its files and loads it.

    Raises, at the first access to a part:
        PartMissing: the set has no such part.
        WeightsMissing, WeightsChanged: files are missing, or have changed.
        ModelMismatch: the gallery was made with another model; PresetMismatch: or with another preset.
        CheckpointInvalid, DeviceUnavailable: raised by the engine.
    """

    def __init__(self, gallery: GalleryReader, models: ModelSet, device: str) -> None:
        """Create a session; nothing is located yet. `device` is "auto", "cuda", "mps" or "cpu"."""
        self.models = models
        self.device = device
        self._gallery = gallery
        self._configs: dict[str, EngineConfig] = {}

    def bind(self) -> None:
        """Bind the gallery, one file, to this set's proposer and encoder, or check that it is bound."""
        assert isinstance(self._gallery, GalleryFile)
        for part in INDEXING_PARTS:
            config = self._locate(part)
            with naming_presets(self._gallery.model_set(), self.models.handle):
                self._gallery.bind_model(part, config.identity, self.models.handle)
            self._configs[part] = config
        record_choice(self._gallery, self.models)

    def config(self, part: str) -> EngineConfig:
        """Locate the part's files and check them against the gallery, without loading the part.

        After this call, loading the part uses no SQLite and may happen in any thread.
        """
        if part not in self._configs:
            config = self._locate(part)
            if part != "judge":
                with naming_presets(self._gallery.model_set(), self.models.handle):
                    self._gallery.check_model(part, config.identity)
            self._configs[part] = config
        return self._configs[part]

    def _locate(self, part: str) -> EngineConfig:
        """Locate the part; if it is missing and the gallery was made with another one, say so instead."""
        try:
            return locate_part(self.models, part)
        except WeightsMissing:
            bound, wanted = self._gallery.model(part), self.models.part(part).name
            if bound is not None and bound.name != wanted:  # fetching the files would not help
                raise ModelMismatch(self._gallery.path, part, bound.name, wanted) from None
            raise

    @cached_property
    def proposer(self) -> RegionProposer:
        """The set's proposer, on the session's device."""
        return load_proposer(self.config("proposer"), self.device)

    @cached_property
    def region_encoder(self) -> RegionEncoder:
        """The encoder of regions, on the session's device."""
        return load_region_encoder(self.config("encoder"), self.device)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The encoder of query texts, on the CPU."""
        return load_text_encoder(self.config("encoder"))

    @cached_property
    def judge(self) -> Judge:
        """The set's judge, on the session's device."""
        return load_judge(self.config("judge"), self.device)

    def release_judge(self) -> None:
        """Free the judge if it is loaded; the next access loads it again."""
        loaded = vars(self).pop("judge", None)
        if loaded is not None:
            loaded.close()

    @property
    def match(self) -> MatchRule:
        """How the set matches regions to the judge's boxes."""
        return self.models.match

    @property
    def fusion(self) -> float:
        """Weight of stage 1 in the set's ranking by verdicts."""
        return self.models.fusion

    @property
    def judge_key(self) -> str:
        """Identity of the judge: SHA-256 (hex) of everything that its answers depend on."""
        return self.config("judge").identity.weight_hash

    @property
    def side_by_side(self) -> bool:
        """True if proposer and encoder may run at a time, since they do not compete for CPU cores."""
        return has_own_processor(self.device)

    @property
    def proposed_at_once(self) -> int:
        """Number of photos that the proposer may work on at a time, each in a thread."""
        return proposals_at_once(self.device)
