"""Models that stay loaded between searches, and their use by one search."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from matir_cli.engines.protocols import (
    Judge,
    MaskedPhoto,
    QueryVector,
    RegionEncoder,
    RegionProposer,
    TextEncoder,
)
from matir_cli.engines.registry import (
    load_judge,
    load_proposer,
    load_region_encoder,
    load_text_encoder,
)
from matir_cli.model_sets.session import ModelSession
from matir_cli.records import Box, EngineConfig, FloatArray, ImageArray, MatchRule, Point, Region, Rle

Engine = TypeVar("Engine")


class _SharedProposer:
    """A proposer that several threads use, one at a time."""

    def __init__(self, proposer: RegionProposer) -> None:
        self._proposer, self._lock = proposer, threading.Lock()

    @property
    def prompts_asked(self) -> int:
        """See `RegionProposer.prompts_asked`."""
        return self._proposer.prompts_asked

    def propose(self, image: ImageArray) -> list[Region]:
        """Return the regions of `image`."""
        with self._lock:
            return self._proposer.propose(image)

    def refine(self, image: ImageArray, boxes: Sequence[Box]) -> list[Region | None]:
        """Return the region inside each box."""
        with self._lock:
            return self._proposer.refine(image, boxes)

    def region_at(self, image: ImageArray, point: Point) -> Region | None:
        """Return the most likely region under `point`."""
        with self._lock:
            return self._proposer.region_at(image, point)


class _SharedRegionEncoder:
    """An encoder of regions that several threads use, one at a time."""

    def __init__(self, encoder: RegionEncoder) -> None:
        self._encoder, self._lock = encoder, threading.Lock()

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self._encoder.dimensions

    def encode(self, image: ImageArray, masks: Sequence[Rle]) -> FloatArray:
        """Return the vectors of the masks."""
        with self._lock:
            return self._encoder.encode(image, masks)

    def encode_photos(self, photos: Sequence[MaskedPhoto]) -> list[FloatArray]:
        """Return the vectors of the masks of each photo."""
        with self._lock:
            return self._encoder.encode_photos(photos)


class _SharedTextEncoder:
    """An encoder of texts that several threads use, one at a time."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder, self._lock = encoder, threading.Lock()

    def encode(self, query: str) -> QueryVector:
        """Return the vector of `query`."""
        with self._lock:
            return self._encoder.encode(query)


class _Place(Generic[Engine]):
    """The place of one engine, which is loaded when it is first used.

    An engine with another identity, because the model set or its files have changed, replaces it.
    """

    def __init__(self, free: Callable[[Engine], object] = lambda _: None) -> None:
        """Create an empty place; `free` is called with an engine that is given up."""
        self._lock = threading.Lock()
        self._free = free
        self._key: tuple[str, str] | None = None
        self._engine: Engine | None = None

    @property
    def is_loaded(self) -> bool:
        """True if there is an engine."""
        return self._engine is not None

    def get(self, config: EngineConfig, device: str, load: Callable[[], Engine]) -> Engine:
        """Return the engine for `config` and `device`; `load` loads it."""
        key = config.identity.weight_hash, device
        with self._lock:
            if self._engine is None or self._key != key:
                self._give_up()
                self._engine, self._key = load(), key
            return self._engine

    def release(self) -> None:
        """Free the engine if there is one; it must not be in use."""
        with self._lock:
            self._give_up()

    def _give_up(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            self._free(engine)


class WarmEngines:
    """The engines that are loaded, at most one of each kind; may be used by several threads."""

    def __init__(self) -> None:
        """Create the places; nothing is loaded."""
        self._proposer = _Place[RegionProposer]()
        self._region_encoder = _Place[RegionEncoder]()
        self._text_encoder = _Place[TextEncoder]()
        self._judge = _Place[Judge](lambda judge: judge.close())

    def proposer(self, config: EngineConfig, device: str) -> RegionProposer:
        """Return the proposer."""
        return self._proposer.get(config, device, lambda: _SharedProposer(load_proposer(config, device)))

    def region_encoder(self, config: EngineConfig, device: str) -> RegionEncoder:
        """Return the encoder of regions."""
        return self._region_encoder.get(
            config, device, lambda: _SharedRegionEncoder(load_region_encoder(config, device))
        )

    def text_encoder(self, config: EngineConfig) -> TextEncoder:
        """Return the encoder of texts."""
        return self._text_encoder.get(config, "cpu", lambda: _SharedTextEncoder(load_text_encoder(config)))

    def judge(self, config: EngineConfig, device: str) -> Judge:
        """Return the judge, which only one search may use at a time."""
        return self._judge.get(config, device, lambda: load_judge(config, device))

    @property
    def loaded(self) -> list[str]:
        """Names of the engines that are loaded."""
        places = {
            "judge": self._judge.is_loaded,
            "proposer": self._proposer.is_loaded,
            "region encoder": self._region_encoder.is_loaded,
            "text encoder": self._text_encoder.is_loaded,
        }
        return [name for name, is_loaded in places.items() if is_loaded]

    def release(self) -> list[str]:
        """Free all engines; return their names. The judge must not be in use."""
        released = self.loaded
        for place in (self._proposer, self._region_encoder, self._text_encoder):
            place.release()
        self._judge.release()
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return released


class JobModels:
    """The models of one search: files are located and compared with its gallery, engines are shared."""

    def __init__(self, session: ModelSession, engines: WarmEngines, take_turn: Callable[[], object]) -> None:
        """Wrap the session of the search's gallery.

        Args:
            take_turn: called before the judge is used; returns when no other search uses it.
        """
        self._session, self._engines, self._take_turn = session, engines, take_turn

    @property
    def proposer(self) -> RegionProposer:
        """The proposer."""
        return self._engines.proposer(self.config("proposer"), self._session.device)

    @property
    def region_encoder(self) -> RegionEncoder:
        """The encoder of regions."""
        return self._engines.region_encoder(self.config("encoder"), self._session.device)

    @property
    def text_encoder(self) -> TextEncoder:
        """The encoder of texts."""
        return self._engines.text_encoder(self.config("encoder"))

    @property
    def judge(self) -> Judge:
        """The judge; waits for its turn at the first access."""
        self._take_turn()
        return self._engines.judge(self.config("judge"), self._session.device)

    @property
    def judge_key(self) -> str:
        """Identity of the judge."""
        return self._session.judge_key

    @property
    def match(self) -> MatchRule:
        """How the set matches regions to the judge's boxes."""
        return self._session.match

    @property
    def fusion(self) -> float:
        """Weight of stage 1 in the set's ranking by verdicts."""
        return self._session.fusion

    def config(self, part: str) -> EngineConfig:
        """Locate and check the files of a part."""
        return self._session.config(part)
