"""The observer that ignores all progress."""

from matir_cli.progress import ProgressObserver, no_progress


def test_ignoring_progress_fulfils_the_protocol() -> None:
    observer: ProgressObserver = no_progress
    results = []
    with observer("judging", 2, "photo", done=1) as advance:
        results.append(advance())
        results.append(advance(5))
    assert results == [None, None]
