"""The one place where errors reach a user: one line with its remedy, and the exit code.

Exit codes: 0 done, 1 nothing found, 2 an error, 3 done but some files were skipped,
130 interrupted.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
import warnings
from typing import NoReturn

import click
from click.exceptions import Exit
from click.shell_completion import shell_complete

from matir_cli import errors
from matir_cli.cli.exit_codes import ERROR, INTERRUPTED
from matir_cli.output.terminal import printable

STAGE_1_ALONE = "or ask for stage 1 alone with --no-rerank."

PROGRAM = "matir"

COMPLETION_VARIABLE = "_MATIR_COMPLETE"
"""Set by the shell's completion script to what it wants to know."""

DEBUG_VARIABLE = "MATIR_DEBUG"
"""Set, it shows the traceback of an error that is not one of ours."""


def run(command: click.Command) -> NoReturn:
    """Run the command line and end the process; no traceback reaches a user."""
    _make_streams_safe()
    if not sys.warnoptions:  # libraries' remarks on photos, with paths of their own files
        warnings.simplefilter("ignore")
    try:
        code = _invoke(command)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = ERROR
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted: no error. What is left in the buffer has nowhere
        # to go; Python would complain when it flushes it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except errors.MatirError as error:
        say(" ".join(explain(error)))
        _leave_at_once(ERROR)
    except (KeyboardInterrupt, click.Abort):
        say("interrupted")
        _leave_at_once(INTERRUPTED)
    except OSError as error:
        _show_traceback()
        say(f"{error.filename or 'the output'}: {(error.strerror or str(error)).lower()}")
        _leave_at_once(ERROR)
    except Exception as error:
        _show_traceback()
        say(f"an error that should not happen: {type(error).__name__}: {error}")
        say(f"please report it with the output of the same command under {DEBUG_VARIABLE}=1")
        _leave_at_once(ERROR)
    sys.exit(code)


def _show_traceback() -> None:
    """Of the error in hand, to who asked for it."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exc()


def _invoke(command: click.Command) -> int:
    """`command.main`, but for the exit code 1 that it makes of a broken pipe, "nothing found" here."""
    if instruction := os.environ.get(COMPLETION_VARIABLE):
        return shell_complete(command, {}, PROGRAM, COMPLETION_VARIABLE, instruction)
    try:
        # https://no-color.org; without it click itself leaves colour to terminals.
        color = False if os.environ.get("NO_COLOR") else None
        with command.make_context(PROGRAM, sys.argv[1:], color=color) as context:
            command.invoke(context)
    except Exit as leaving:
        return leaving.exit_code
    return 0


def _make_streams_safe() -> None:
    """A stream that the caller closed swallows all, else the next file opened would take its place; one
    that cannot spell a name escapes it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave_at_once(code: int) -> NoReturn:
    """End without waiting for a stage's thread that is deep in a model; Python's own end would crash it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # its reader has gone
            stream.flush()
    os._exit(code)


def say(message: str) -> None:
    """One line of talk on stderr, harmless for a terminal."""
    click.echo(f"matir: {printable(message)}", err=True)


def explain(error: errors.MatirError) -> tuple[str, str]:
    """What is wrong, and what to do about it; with whatever characters there are in file names."""
    return str(error), _remedy(error)


def _remedy(error: errors.MatirError) -> str:
    match error:
        case errors.GalleryTooOld(path=path):
            return f"Any command on it, such as matir info --db {path}, brings it up to date."
        case errors.PartMissing(part="judge"):
            return f"Name another with --models, {STAGE_1_ALONE}"
        case errors.WeightsMissing(model_set=name, part=part):
            fetch = f"Fetch them: matir models pull {name}"
            return f"{fetch} -- {STAGE_1_ALONE}" if part == "judge" else fetch
        case errors.FolderVanished(count=0):
            return "Check the name."
        case errors.PackageMissing(extra=extra):
            return f"pip install 'matir-cli[{extra}]'"
        case errors.OutOfRange(name=name):
            return f"Give another --{name.replace('_', '-')}."
        case _:
            return _REMEDIES.get(type(error), "")


_REMEDIES: dict[type[errors.MatirError], str] = {
    errors.GalleryMissing: "Check the name, or make one with: matir add FOLDER",
    errors.GalleryEmpty: "Add some with: matir add FOLDER",
    errors.NotAGallery: "Name another file with --db.",
    errors.GalleryTooNew: "Upgrade matir-cli.",
    errors.GalleryDamaged: "Restore a copy, or make it anew with: matir add",
    errors.GalleryIOFailed: "Check the room, quota and health of the disk, and run the same command again.",
    errors.GalleryBusy: "Try again when that one has ended.",
    errors.GalleryReadOnly: "Check the permissions of the file and its folder.",
    errors.DiskFull: "Make room and run the same command again.",
    errors.RoomTooSmall: "Make room, or put the gallery on another disk; it was left as it is.",
    errors.MergeIntoItself: "Name the other one, or this one with --db.",
    errors.PhotoUnknown: "See what it holds with: matir ls",
    errors.ModelMismatch: (
        "Use the models it was made with, or another file with --db (in matir eval, --out)."
    ),
    errors.ModelSetUnknown: "Name one of these, or a TOML file.",
    errors.ModelSetInvalid: "Correct it in the TOML file.",
    errors.PartMissing: "Name another with --models.",
    errors.WeightsChanged: (
        "Pull it again; if the new file is meant: matir models pull --accept-changed SET"
    ),
    errors.CheckpointInvalid: "Check the file, or fetch it again.",
    errors.MemoryTooSmall: "Close other programs, or use a smaller model set (--models lite).",
    errors.ContextTooSmall: (
        "Shorten the query, or raise context_tokens (or lower max_pixels) in the model set."
    ),
    errors.DownloadFailed: "Run the same command again to resume.",
    errors.EngineFailed: "Try --device cpu, or a smaller model set.",
    errors.PhotoUnreadable: "Choose another photo.",
    errors.AnnotationsInvalid: "Correct it or fetch it again, and check which folder --images names.",
    errors.FolderVanished: "Mount its volume; if they were moved or deleted, say so with --drop-all.",
    errors.OutputError: "Choose another place or make room.",
    errors.OutputExists: "Name another file, or replace it with --force.",
    errors.SidecarUnusable: "Repair it or move it away; --region none writes the keyword alone.",
    errors.DeviceUnavailable: "Use --device auto, or --device cpu.",
    errors.ExampleOutside: "Count pixels from the top left corner of the photo as it is shown.",
    errors.ExampleBlank: "Draw a box tight around it.",
    errors.QueryEmpty: 'Describe an object, such as: matir find "dog led by rope"',
    errors.QueryNotText: "Write it in UTF-8.",
    errors.QueryContradicts: "Say in --not what the wrong photos have that the right ones lack.",
}
