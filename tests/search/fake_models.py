"""Models for searches in tests: those that see colours, and those that must not be used."""

from dataclasses import dataclass, field
from typing import NoReturn

from matir_cli.engines.protocols import RegionEncoder, TextEncoder
from matir_cli.records import EngineConfig, MatchRule, ModelIdentity
from tests.support.fakes import ColourEncoder, ColourJudge, ColourProposer, ColourText


@dataclass
class ColourModels:
    """Models that see colours; none of their files is missing."""

    judge: ColourJudge = field(default_factory=ColourJudge)
    proposer: ColourProposer = field(default_factory=ColourProposer)
    region_encoder: RegionEncoder = field(default_factory=ColourEncoder)
    text_encoder: TextEncoder = field(default_factory=ColourText)
    judge_key: str = "k" * 64
    match: MatchRule = "iou"
    fusion: float = 0.0

    def config(self, part: str) -> EngineConfig:
        return EngineConfig("colours", {}, {}, ModelIdentity(part, "0" * 64))


class UnusedModels:
    """Models none of which may be used."""

    @property
    def proposer(self) -> NoReturn:
        raise AssertionError("the proposer was used without need")

    @property
    def region_encoder(self) -> NoReturn:
        raise AssertionError("the region encoder was used without need")

    @property
    def text_encoder(self) -> NoReturn:
        raise AssertionError("the text encoder was used without need")

    @property
    def judge(self) -> NoReturn:
        raise AssertionError("the judge was used without need")

    @property
    def judge_key(self) -> NoReturn:
        raise AssertionError("the judge was used without need")

    @property
    def match(self) -> NoReturn:
        raise AssertionError("the judge was used without need")

    @property
    def fusion(self) -> NoReturn:
        raise AssertionError("the judge was used without need")

    def config(self, part: str) -> NoReturn:
        raise AssertionError(f"the files of the {part} were looked for without need")
