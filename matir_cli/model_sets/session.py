"""The engines of one model set at work on one gallery, each loaded when it is first used, once."""

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
)
from matir_cli.errors import ModelMismatch, WeightsMissing
from matir_cli.gallery.database import GalleryFile
from matir_cli.model_sets.catalogue import ModelSet
from matir_cli.model_sets.weights import locate_files
from matir_cli.records import EngineConfig

INDEXING_PARTS = ("proposer", "encoder")
"""What photos are indexed with; a gallery is made for these."""


def locate_part(models: ModelSet, part: str) -> EngineConfig:
    """Where the part's files are; its identity is of all that what it gives depends on.

    Raises:
        PartMissing: the set has no such part.
        WeightsMissing, WeightsChanged: its files are not here, or are not what they were.
        ModelSetInvalid: its settings are wrong.
    """
    return identify_config(locate_files(models, part))


def check_indexing_weights(models: ModelSet, gallery: Path) -> None:
    """Make sure that what photos are indexed with is here, before the file `gallery` is made for it.

    One that is there already says itself what it was made with, see `Engines.bind`.

    Raises:
        PartMissing, WeightsMissing, WeightsChanged: it is not.
    """
    if not gallery.exists():
        for part in INDEXING_PARTS:
            locate_part(models, part)


class ModelSession:
    """What a model set's parts are loaded as. Asking for a part finds its files and loads it.

    Raises, at the first use of a part:
        PartMissing: the set has no such part.
        WeightsMissing, WeightsChanged: its files are not here, or are not what they were.
        ModelMismatch: the gallery was made with another one.
        CheckpointInvalid, DeviceUnavailable: as its engine says.
    """

    def __init__(self, gallery: GalleryFile, models: ModelSet, device: str) -> None:
        """Nothing is looked for yet; `device` is "auto", "cuda", "mps" or "cpu"."""
        self.models = models
        self.device = device
        self._gallery = gallery
        self._configs: dict[str, EngineConfig] = {}

    def bind(self) -> None:
        """Make the gallery one of this set's proposer and encoder, or check that it is."""
        for part in INDEXING_PARTS:
            config = self._located(part)
            self._gallery.bind_model(part, config.identity, self.models.handle)
            self._configs[part] = config

    def config(self, part: str) -> EngineConfig:
        """Where the part's files are, checked against the gallery; loads nothing.

        Once it was asked for, loading the part touches no SQLite and may happen in any thread.
        """
        if part not in self._configs:
            config = self._located(part)
            if part != "judge":
                self._gallery.check_model(part, config.identity)
            self._configs[part] = config
        return self._configs[part]

    def _located(self, part: str) -> EngineConfig:
        try:
            return locate_part(self.models, part)
        except WeightsMissing:
            made, wanted = self._gallery.model(part), self.models.part(part).name
            if made is not None and made.name != wanted:  # fetching them would not help
                raise ModelMismatch(self._gallery.path, part, made.name, wanted) from None
            raise

    @cached_property
    def proposer(self) -> RegionProposer:
        return load_proposer(self.config("proposer"), self.device)

    @cached_property
    def region_encoder(self) -> RegionEncoder:
        return load_region_encoder(self.config("encoder"), self.device)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        return load_text_encoder(self.config("encoder"))

    @cached_property
    def judge(self) -> Judge:
        return load_judge(self.config("judge"), self.device)

    def release_judge(self) -> None:
        """Free the judge where it is loaded; whoever asks it again loads it again."""
        loaded = vars(self).pop("judge", None)
        if loaded is not None:
            loaded.close()

    @property
    def judge_key(self) -> str:
        """Names the judge by all that its answers depend on. SHA-256, hex."""
        return self.config("judge").identity.weight_hash

    @property
    def side_by_side(self) -> bool:
        """Whether proposer and encoder may run at a time: they leave the processor's cores to others."""
        return has_own_processor(self.device)
