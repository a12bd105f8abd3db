"""Searches on the server: each in a thread of its own, the judge used by one at a time.

Stage 1 of several searches may run at once. The first photo that needs the judge makes a search wait for its
turn, which it keeps until it ends; verdicts that the gallery remembers need none.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from matir_cli.errors import MatirError
from matir_cli.gallery.database import GalleryFile
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import ModelSession
from matir_cli.photos.decode import set_decode_timeout
from matir_cli.photos.decoder_process import DECODE_SECONDS
from matir_cli.progress import Advance, ProgressObserver
from matir_cli.search.events import FinalEvent, SearchEvent, SearchOutcome, Stage1Event, VerdictEvent
from matir_cli.search.models import SearchModels
from matir_cli.search.pipeline import SearchOptions, search_events
from matir_cli.search.query import Query
from matir_cli.search.results import SearchResult
from matir_cli.server.engines import JobModels, WarmEngines
from matir_cli.server.messages import Message, Step, Waiting, WireError, event_message
from matir_cli.server.options import Limits

MOST_SEARCHES = 16
"""Searches at work or waiting; further ones are refused."""

KEPT_SEARCHES = 16
"""Finished searches whose results can still be asked for."""

_NEWEST = 0.2
"""Weight of the last photo in the mean time that the judge takes for one."""


@dataclass(frozen=True, slots=True)
class Search:
    """A search to run."""

    prepare: Callable[[GalleryFile, SearchModels], Query]
    """Returns the query; called in the search's thread."""
    options: SearchOptions
    title: str = ""
    """The query in a few words."""
    decode_seconds: float = DECODE_SECONDS
    """Time limit of a photo's decoding."""
    kept: bool = False
    """Keep the messages for later listeners, and for a while after the end; else there is one listener, and
    the search ends when it goes away."""
    source: EventSource | None = None
    """Yields the events, in the search's thread; None: `search_events`."""
    outlines: int = 0
    """Results, from the first on, of which listeners get the outline of their region."""


class QueueFull(Exception):
    """There are `MOST_SEARCHES` already."""


class _Ended(BaseException):
    """The search was ended from outside; nobody waits for its result."""


class _Turns:
    """The turns of searches that use the judge, first come, first served."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._order: deque[object] = deque()
        self.seconds: float | None = None
        """Mean time that the judge takes for a photo."""

    def take(self, owner: SearchJob) -> None:
        """Wait until no other search uses the judge; `owner` is asked whether to go on waiting."""
        said: Waiting | None = None
        with self._condition:
            if owner not in self._order:
                self._order.append(owner)
            while self._order[0] is not owner:
                try:
                    owner.check()
                except BaseException:
                    self._order.remove(owner)
                    self._condition.notify_all()
                    raise
                waiting = self._waiting(owner)
                if waiting.ahead and (said is None or said.ahead != waiting.ahead):
                    owner.send(Message(waiting=waiting))
                    said = waiting
                self._condition.wait()

    def leave(self, owner: object) -> None:
        """Give up the turn, or the place in the queue."""
        with self._condition, suppress(ValueError):
            self._order.remove(owner)
            self._condition.notify_all()

    def take_if_free(self, owner: object) -> bool:
        """Take the turn if nobody has it or waits for it; return whether that is so."""
        with self._condition:
            if self._order:
                return False
            self._order.append(owner)
            return True

    def wake(self) -> None:
        """Let those that wait look whether to go on."""
        with self._condition:
            self._condition.notify_all()

    def note(self, seconds: float) -> None:
        """Note the time that the judge took for a photo."""
        mean = self.seconds
        self.seconds = seconds if mean is None else (1 - _NEWEST) * mean + _NEWEST * seconds

    def _waiting(self, owner: SearchJob) -> Waiting:
        before = [each for each in self._order if isinstance(each, SearchJob)]
        before = before[: before.index(owner)]
        photos = sum(each.unjudged for each in before)
        return Waiting(len(before), None if self.seconds is None else round(photos * self.seconds, 1))


class SearchJob:
    """A search at work. Its methods run in the event loop unless they say otherwise."""

    def __init__(self, jobs: Jobs, search: Search) -> None:
        """Create the job; `Jobs.start` starts it."""
        self.id = secrets.token_hex(8)
        self.search = search
        self.history: list[Message | None] = []
        """All messages; None for those that were delivered and are not kept."""
        self.unjudged = 0
        """Candidates that have no verdict yet."""
        self._jobs = jobs
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._listeners = 0
        self._unheard_timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._has_turn = False
        self._abort: Callable[[], object] = lambda: None

    @property
    def outcome(self) -> SearchOutcome | None:
        """The outcome; None if there is none, or none yet."""
        last = self.history[-1] if self.history else None
        return None if last is None or last.final is None else last.final.outcome

    @property
    def results(self) -> list[SearchResult]:
        """The results so far, the final ones first: a photo may have several, of which the first counts."""
        messages = [message for message in self.history if message is not None]
        final = [] if self.outcome is None else self.outcome.results
        grounded = [message.grounded.result for message in messages if message.grounded is not None]
        stage1 = [message.stage1.results for message in messages if message.stage1 is not None]
        return [*final, *grounded, *chain(*stage1)]

    @property
    def is_over(self) -> bool:
        """True if the last message is there."""
        return bool(self.history) and (last := self.history[-1]) is not None and last.is_last

    def stop(self) -> None:
        """Stop after the photo that is being judged, as Ctrl-C does; what was judged is the result."""
        self._stopped.set()
        self._jobs.turns.wake()

    def end(self, reason: str) -> None:
        """End without a result; listeners get `reason` at once."""
        self._ended.set()
        self._abort()
        self._append(Message(fault=reason))
        self._jobs.turns.wake()

    async def messages(self, start: int = 0) -> AsyncGenerator[tuple[int, Message], None]:
        """Yield the messages from number `start` on with their numbers, until the last."""
        self._listeners += 1
        self._forget_timer()
        number = start
        try:
            while True:
                while number < len(self.history):
                    message = self.history[number]
                    if not self.search.kept and not self.is_over:
                        self.history[number] = None
                    if message is not None:
                        yield number, message
                        if message.is_last:
                            return
                    number += 1
                changed = self._changed
                if self.is_over:
                    return
                await changed.wait()
        finally:
            self._listeners -= 1

    def expect_listener(self) -> None:
        """End the search if nobody listens: at once, or after a while if it is to be kept."""
        if not self.search.kept:
            self._end_if_unheard()
        elif not self._listeners and not self.is_over:
            self._forget_timer()
            seconds = self._jobs.limits.unheard_seconds
            self._unheard_timer = self._loop.call_later(seconds, self._end_if_unheard)

    def _end_if_unheard(self) -> None:
        if not self._listeners and not self.is_over:
            self.end("nobody listens")

    def _forget_timer(self) -> None:
        """Do not end the search; the timer would also keep it, with all its results, in memory."""
        if self._unheard_timer is not None:
            self._unheard_timer.cancel()
            self._unheard_timer = None

    def _append(self, message: Message) -> None:
        if self.is_over:
            return
        self.history.append(message)
        if message.is_last:
            self._forget_timer()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # In the search's thread

    def check(self) -> None:
        """Raise KeyboardInterrupt if the search was stopped; any thread may call this."""
        if self._ended.is_set():
            raise _Ended
        if self._stopped.is_set():
            self._stopped.clear()
            raise KeyboardInterrupt

    def call_at_end(self, abort: Callable[[], object]) -> None:
        """Have `abort` called by any thread when the search is ended from outside."""
        self._abort = abort
        if self._ended.is_set():
            abort()

    def send(self, message: Message) -> None:
        """Send a message to the listeners; in the search's thread."""
        with suppress(RuntimeError):  # the loop has ended, and so will the process
            self._loop.call_soon_threadsafe(self._append, message)

    def run(self) -> None:
        """Run the search; in its thread."""
        try:
            last = self._run()
        except (KeyboardInterrupt, _Ended):
            last = Message(interrupted=True)
        except MatirError as error:
            last = Message(error=WireError.of(error))
        except Exception as error:
            last = Message(fault=f"{type(error).__name__}: {error}")
        finally:
            self._jobs.turns.leave(self)
        self.send(last)
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._jobs.finish, self)

    def _run(self) -> Message:
        with GalleryFile.open(self._jobs.gallery) as gallery:
            session = ModelSession(gallery, load_model_set(self._jobs.models), self._jobs.device)
            models = JobModels(session, self._jobs.engines, self._take_turn)
            query = self.search.prepare(gallery, models)
            with closing(self._events(gallery, models, query)) as events:
                event: SearchEvent = next(events)
                self._note(event, 0.0)
                while not isinstance(event, FinalEvent):
                    began = time.monotonic()
                    self.send(event_message(event))
                    try:
                        self.check()
                        event = next(events)
                    except KeyboardInterrupt as stop:
                        event = events.throw(stop)
                    self._note(event, time.monotonic() - began)
        return event_message(event)

    def _events(
        self, gallery: GalleryFile, models: SearchModels, query: Query
    ) -> Generator[SearchEvent, None, None]:
        if self.search.source is not None:
            return self.search.source(self, gallery, models, query, self._progress)
        return search_events(gallery, models, query, self.search.options, self._progress)

    def _note(self, event: SearchEvent, seconds: float) -> None:
        """Keep count of the photos to judge, and of the time that they take."""
        if isinstance(event, Stage1Event):
            self.unjudged = len(event.candidates)
        elif isinstance(event, VerdictEvent):
            self.unjudged = max(0, self.unjudged - 1)
            if self._has_turn:
                self._jobs.turns.note(seconds)

    def _take_turn(self) -> None:
        if not self._has_turn:
            self._jobs.turns.take(self)
            self._has_turn = True
            set_decode_timeout(self.search.decode_seconds)

    @contextmanager
    def _progress(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
        self.send(Message(begin=Step(name, total, unit, done)))
        try:
            yield lambda count=1: self.send(Message(advance=count))
        finally:
            self.send(Message(end=True))


EventSource: TypeAlias = Callable[
    [SearchJob, GalleryFile, SearchModels, Query, ProgressObserver], Generator[SearchEvent, None, None]
]
"""Yields the events of a search, as `search_events` does."""


class Jobs:
    """All searches of the server. Its methods run in the event loop."""

    def __init__(
        self,
        gallery: Path,
        models: str,
        device: str,
        idle_seconds: float,
        log: Callable[[str], object],
        limits: Limits | None = None,
    ) -> None:
        """Create an empty queue.

        Args:
            models: model set: a name, or the path of a TOML file.
            idle_seconds: time without a search after which the models are freed.
            log: called with a line for the user of the server.
        """
        self.gallery, self.models, self.device = gallery, models, device
        self.limits = limits or Limits()
        self.engines = WarmEngines()
        self.turns = _Turns()
        self._idle_seconds = idle_seconds
        self._log = log
        self.served = 0
        """Number of searches so far."""
        self._active: dict[str, SearchJob] = {}
        self._kept: OrderedDict[str, SearchJob] = OrderedDict()
        self._release_timer: asyncio.TimerHandle | None = None

    @property
    def active(self) -> int:
        """Number of searches at work or waiting."""
        return len(self._active)

    @property
    def retry_seconds(self) -> int:
        """Time after which a search that was refused may be tried again."""
        return max(1, round(self.turns.seconds or 1))

    def start(self, search: Search) -> SearchJob:
        """Start a search.

        Raises:
            QueueFull: there are too many.
        """
        if len(self._active) >= MOST_SEARCHES:
            raise QueueFull
        if self._release_timer is not None:
            self._release_timer.cancel()
        job = SearchJob(self, search)
        self._active[job.id] = job
        self.served += 1
        threading.Thread(target=job.run, name=f"search {job.id}", daemon=True).start()
        return job

    def get(self, identity: str) -> SearchJob | None:
        """Return the search with this id, at work or kept."""
        return self._active.get(identity) or self._kept.get(identity)

    def finish(self, job: SearchJob) -> None:
        """Forget a search whose thread ends, or keep it for a while if it is to be kept."""
        del self._active[job.id]
        if job.search.kept:
            self._kept[job.id] = job
            while len(self._kept) > KEPT_SEARCHES:
                self._kept.popitem(last=False)
        if not self._active:
            loop = asyncio.get_running_loop()
            self._release_timer = loop.call_later(self._idle_seconds, self._release)

    def end_all(self, reason: str) -> None:
        """End all searches."""
        for job in self._active.values():
            job.end(reason)

    def _release(self) -> None:
        """Free the models in a thread of its own: it may take a moment."""
        threading.Thread(target=self._release_now, name="release", daemon=True).start()

    def _release_now(self) -> None:
        token = object()
        if not self.turns.take_if_free(token):
            return
        try:
            released = self.engines.release()
        finally:
            self.turns.leave(token)
        if released:
            self._log(f"idle: freed the {', '.join(released)}")
