"""The loop of `matir sync --watch`: one line per change, until a signal ends it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path

from matir_cli.cli.boundary import explain, say
from matir_cli.cli.path_lists import write_path
from matir_cli.cli.text import count_of, describe_absent, describe_notes
from matir_cli.errors import FolderVanished
from matir_cli.gallery.absence import AbsentFolder
from matir_cli.indexing.outcomes import Added, Linked, Refreshed, Skipped, Unchanged
from matir_cli.indexing.sync import ChangeKind, Dropped, SyncOutcome
from matir_cli.indexing.watch import changed_roots


def watch_folders(
    roots: Sequence[Path], gallery: Path, sync: Callable[[Sequence[Path]], Generator[SyncOutcome, None, None]]
) -> None:
    """Bring the gallery up to date with folders now and whenever they change; never returns.

    Added and updated files (+), those with another sidecar (*) and dropped ones (-) are written to standard
    output, problems to standard error, each once.

    Args:
        roots: as returned by `folder_roots`.
        sync: brings the gallery up to date with some of them.

    Raises:
        MatirError: as in `changed_roots` and `sync`, but `FolderVanished` is only said.
        KeyboardInterrupt: a signal arrived.
    """
    said = set[str]()
    started = False
    for changed in changed_roots(roots, gallery):
        try:
            with closing(sync(changed)) as outcomes:
                for outcome in outcomes:
                    _show(outcome, said)
        except FolderVanished as error:
            _say_once(" ".join(explain(error)), said)
        if not started:
            say(f"watching {count_of(len(roots), 'folder')}; Ctrl-C ends it")
            started = True


def _show(outcome: SyncOutcome, said: set[str]) -> None:
    match outcome:
        case Unchanged():
            return
        case Skipped(path, reason):
            _say_once(f"skipped {path}: {reason}", said)
        case AbsentFolder():
            _say_once(f"kept {describe_absent(outcome)}", said)
        case _:
            write_path(outcome.path, null=False, before=f"{_mark(outcome).value} ".encode())
            sys.stdout.flush()
            if isinstance(outcome, Added | Refreshed) and outcome.notes:
                _say_once(f"incomplete {outcome.path}: {describe_notes(outcome.notes)}", said)


def _mark(outcome: Added | Linked | Refreshed | Dropped) -> ChangeKind:
    match outcome:
        case Dropped():
            return ChangeKind.GONE
        case Refreshed():
            return ChangeKind.METADATA
        case _:
            return ChangeKind.NEW


def _say_once(line: str, said: set[str]) -> None:
    if line not in said:
        said.add(line)
        say(line)
