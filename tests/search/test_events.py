"""The events of a search: their order, what they say, and Ctrl-C at any of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from matir_cli.gallery.database import GalleryFile
from matir_cli.search.events import (
    FinalEvent,
    GroundedEvent,
    SearchEvent,
    Stage1Event,
    VerdictEvent,
)
from matir_cli.search.pipeline import SearchOptions, run_search, search_events
from tests.search.fake_models import ColourModels
from tests.search.judged_gallery import names, open_scenes
from tests.support.fakes import ColourJudge


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with open_scenes(tmp_path) as opened:
        yield opened


def test_what_is_known_comes_as_soon_as_it_is(gallery: GalleryFile) -> None:
    models = ColourModels()
    events = search_events(gallery, models, "red", SearchOptions(limit=2, certainty=1))
    first = next(events)
    assert isinstance(first, Stage1Event)
    assert models.judge.asked == []
    assert [result.candidate for result in first.results] == [*first.candidates[:2]]
    assert len(first.candidates) == 5
    assert all(result.verdict is None and result.objects[0].mask is not None for result in first.results)
    for number in range(1, 6):
        event = next(events)
        assert isinstance(event, VerdictEvent)
        assert (event.asked, len(models.judge.asked)) == (number, number)
        assert event.item.verdict is not None
        assert event.item.candidate.photo_id == models.judge.asked[-1]
    grounded = [next(events), next(events)]
    (last,) = events
    assert isinstance(last, FinalEvent)
    assert [event.result for event in grounded if isinstance(event, GroundedEvent)] == last.outcome.results
    assert names(last.outcome.results) == ["e", "c"]


def test_a_search_observed_is_the_same_search(gallery: GalleryFile) -> None:
    for options in (
        SearchOptions(limit=3, certainty=1),
        SearchOptions(rerank=False),
        SearchOptions(ground=False),
    ):
        seen: list[SearchEvent] = []
        outcome = run_search(gallery, ColourModels(), "red", options, observe=seen.append)
        assert seen[-1] == FinalEvent(outcome)
        assert outcome == run_search(gallery, ColourModels(), "red", options)
        kinds = [type(event) for event in seen]
        judged, grounded = (
            5 if options.rerank else 0,
            len(outcome.results) if options.rerank and options.ground else 0,
        )
        assert kinds == [
            Stage1Event,
            *[VerdictEvent] * judged,
            *[GroundedEvent] * grounded,
            FinalEvent,
        ]


@pytest.mark.parametrize("at", range(9))
def test_ctrl_c_while_an_event_is_shown(gallery: GalleryFile, at: int) -> None:
    seen: list[SearchEvent] = []

    def interrupt(event: SearchEvent) -> None:
        seen.append(event)
        if len(seen) == at + 1:
            raise KeyboardInterrupt

    models = ColourModels(ColourJudge(unjudged=frozenset({4})))
    if at in (0, 8):  # nothing is judged, or everything is over
        with pytest.raises(KeyboardInterrupt):
            run_search(gallery, models, "red", SearchOptions(limit=2, certainty=1), observe=interrupt)
        assert len(seen) == at + 1
        return
    if at > 5:  # while photos are grounded
        outcome = run_search(gallery, models, "red", SearchOptions(limit=2, certainty=1), observe=interrupt)
        whole = run_search(gallery, models, "red", SearchOptions(limit=2, certainty=1))
        assert [(item.photo.id, item.rank) for item in outcome.results] == [
            (item.photo.id, item.rank) for item in whole.results
        ]
        count = at - 5
        assert outcome.results[:count] == whole.results[:count]
        assert all(item.grounding is None and item.objects for item in outcome.results[count:])
        assert outcome.ungrounded == 2 - count
        assert outcome.complete == (count == 2)
        assert seen[-1] == FinalEvent(outcome)
        return
    outcome = run_search(gallery, models, "red", SearchOptions(limit=9, certainty=1), observe=interrupt)
    judged = [event.item.candidate.photo_id for event in seen if isinstance(event, VerdictEvent)]
    assert not outcome.complete
    assert models.judge.asked == judged
    assert {item.photo.id for item in outcome.results} == set(judged)
    assert models.judge.grounded == []
    assert seen[-1] == FinalEvent(outcome)
