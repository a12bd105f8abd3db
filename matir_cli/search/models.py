"""The models that a search uses, as a protocol."""

from __future__ import annotations

from typing import Protocol

from matir_cli.engines.protocols import Judge, RegionEncoder, RegionProposer, TextEncoder
from matir_cli.records import EngineConfig, MatchRule


class SearchModels(Protocol):
    """The models of one model set; each is loaded once, when it is first used.

    `matir_cli.model_sets.session.ModelSession` is the implementation that loads real models.
    """

    @property
    def proposer(self) -> RegionProposer:
        """Proposes regions; used for examples and for refining masks."""
        ...

    @property
    def region_encoder(self) -> RegionEncoder:
        """Encodes regions; used for examples that are not in the gallery."""
        ...

    @property
    def text_encoder(self) -> TextEncoder:
        """Encodes the texts of a query."""
        ...

    @property
    def judge(self) -> Judge:
        """Judges and grounds candidates."""
        ...

    @property
    def judge_key(self) -> str:
        """Identifies the judge by everything its answers depend on; verdicts are cached under this key."""
        ...

    @property
    def match(self) -> MatchRule:
        """How the model set matches regions to the judge's boxes, unless a search says otherwise."""
        ...

    @property
    def fusion(self) -> float:
        """Weight of stage 1 in the ranking by verdicts, see `encoding.fusion_weight`; 0: none."""
        ...

    def config(self, part: str) -> EngineConfig:
        """Locate and check the files of a part ("proposer", "encoder" or "judge") without loading it.

        Raises:
            MatirError: the part or its files are missing, or do not match the gallery.
        """
        ...
