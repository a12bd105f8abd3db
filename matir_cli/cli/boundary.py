"""Turns errors into one line with a remedy, and an exit code.

This is the only place where errors reach the user. The exit codes are in `cli.exit_codes`.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import traceback
import warnings
from pathlib import Path
from typing import NoReturn

import click
from click.core import ParameterSource
from click.exceptions import Exit
from click.shell_completion import shell_complete

from matir_cli import errors
from matir_cli.cli import signals
from matir_cli.cli.exit_codes import DONE, ERROR, INTERRUPTED
from matir_cli.output.printable import printable

STAGE_1_ALONE = "search with stage 1 alone: --no-rerank"

PROGRAM = "matir"

COMPLETION_VARIABLE = "_MATIR_COMPLETE"
"""Environment variable in which the shell's completion script puts its instruction."""

DEBUG_VARIABLE = "MATIR_DEBUG"
"""Environment variable that, if set, shows the traceback of internal errors."""


def run(command: click.Command) -> NoReturn:
    """Run the command line and end the process; the user sees no traceback."""
    try:
        _make_streams_safe()
        if not sys.warnoptions:  # libraries' warnings about photos, which name the libraries' own files
            warnings.simplefilter("ignore")
        signals.raise_in_command()
        code = _invoke(command)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        _say_defaults(error)
        code = ERROR
    except BrokenPipeError:
        # The reader (such as `| head`) has stopped reading, which is not an error. The rest of the
        # buffer goes to the null device: Python would complain when it flushes it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    except errors.MatirError as error:
        if signals.exit_code() is None:
            say(" ".join(explain(error)))
        code = ERROR
    except (KeyboardInterrupt, click.Abort, signals.Terminated):
        code = INTERRUPTED
    except Exception as error:
        if signals.exit_code() is None:  # a library may turn Ctrl-C into an error of its own
            _report_fault(error)
        code = ERROR
    _leave_at_once(code)


def _say_defaults(error: click.ClickException) -> None:
    """Say which options of a wrong command line are not on it, but in the defaults file."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        sources = ((each, context.get_parameter_source(each.name or "")) for each in context.command.params)
        names = [each.opts[0] for each, source in sources if source is ParameterSource.DEFAULT_MAP]
        if names:
            say(f"set in the defaults file: {', '.join(names)}; to run without it: MATIR_CONFIG= matir ...")


def _report_fault(error: Exception) -> None:
    """Report an error that is not one of ours."""
    _show_traceback()
    if isinstance(error, MemoryError):
        say("not enough memory; close other programs, or raise the limit that the process runs under")
        return
    if isinstance(error, OSError):
        say(f"{error.filename or 'the output'}: {(error.strerror or str(error)).lower()}")
        return
    say(f"internal error: {type(error).__name__}: {error}")
    say(f"please report it, with the output of the same command run with {DEBUG_VARIABLE}=1")


def _show_traceback() -> None:
    """Print the traceback of the error being handled, if `DEBUG_VARIABLE` asks for it."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exc()


def _invoke(command: click.Command) -> int:
    """Run the command and return its exit code.

    click's own `command.main` would turn a broken pipe into exit code 1, which means "nothing found" here.
    """
    if instruction := os.environ.get(COMPLETION_VARIABLE):
        return shell_complete(command, {}, PROGRAM, COMPLETION_VARIABLE, instruction)
    try:
        # See https://no-color.org. Otherwise click decides: colours on terminals only.
        color = False if os.environ.get("NO_COLOR") or is_dumb() else None
        with command.make_context(PROGRAM, sys.argv[1:], color=color) as context:
            command.invoke(context)
    except Exit as leaving:
        return leaving.exit_code
    return DONE


def is_dumb() -> bool:
    """Return True if the terminal does not interpret escape sequences, as its TERM says."""
    return os.environ.get("TERM") == "dumb"


def _make_streams_safe() -> None:
    """Replace closed streams, and let streams escape characters that their encoding lacks.

    A stream that the caller closed is replaced by the null device; otherwise the next file opened
    would take its descriptor.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave_at_once(code: int) -> NoReturn:
    """End the process without waiting for threads; if a signal ended the command, with its exit code.

    A thread may be running a model; the shutdown of the interpreter would crash it. It would also be a time
    in which Ctrl-C prints a traceback.
    """
    signals.end_at_once()
    if code in (ERROR, INTERRUPTED):
        code = signals.exit_code() or code
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            stream.flush()
    os._exit(code)


def say(message: str) -> None:
    """Print one line on stderr, made safe for a terminal."""
    click.echo(f"matir: {printable(message)}", err=True)


def explain(error: errors.MatirError) -> tuple[str, str]:
    """Return what is wrong and what to do about it.

    Both may hold any character of a file name: print them with `say`.
    """
    return str(error), _remedy(error)


def _is_folder_or_pattern(path: Path) -> bool:
    return os.path.isdir(path) or not {"*", "?"}.isdisjoint(str(path))  # noqa: PTH112 - for any name


def _remedy(error: errors.MatirError) -> str:
    match error:
        case errors.NoGalleryLeft():
            return "Mend or restore one of them, as said above, or name others with --db."
        case errors.GalleryMissing(path=path) if _is_folder_or_pattern(path):
            return "Check the name: galleries in a folder are its files *.db, and a pattern stands in quotes."
        case errors.GalleryError(path=path) if type(error) in _GALLERY_REMEDIES:
            return _GALLERY_REMEDIES[type(error)].format(path=shlex.quote(str(path)))
        case errors.ModelSetUntrusted(source=source):
            return f"If you trust that file, name it: --models {shlex.quote(source)}"
        case errors.PartMissing(part="judge"):
            return f"Choose another model set with --models, or {STAGE_1_ALONE}"
        case errors.WeightsMissing(model_set=name, part=part):
            fetch = f"Fetch them: matir models pull {shlex.quote(name)}"
            return f"{fetch} -- or {STAGE_1_ALONE}" if part == "judge" else fetch
        case errors.ReencodingBegun(path=path, model_set=begun, wanted=wanted):
            name, db = shlex.quote(begun), f"--db {shlex.quote(str(path))}"
            give_up = f"matir reencode --restart --models {shlex.quote(wanted)} {db}"
            return f"Go on: matir reencode --models {name} {db} -- or begin anew: {give_up}"
        case errors.ServerRunning(gallery=path):
            return f"Use that one, or end it: matir serve --stop --db {shlex.quote(str(path))}"
        case errors.ListNotUtf8(encoding=encoding):
            return f"Convert it first: iconv -f {encoding} -t UTF-8"
        case errors.FolderVanished(count=0):
            return "Check the name."
        case errors.ExtensionUnusable():
            # Imported here: it reads the versions of packages, which hardly any command needs.
            from matir_cli.maintenance.doctor.packages import reinstall_sqlite

            return reinstall_sqlite()
        case errors.PackageMissing(extra=extra):
            return f"pip install 'matir-cli[{extra}]'"
        case errors.OutOfRange(name=name):
            return f"Choose another value for --{name.replace('_', '-')}."
        case _:
            return _REMEDIES.get(type(error), "")


_GALLERY_REMEDIES: dict[type[errors.GalleryError], str] = {
    errors.GalleryMissing: "Check the name, or create one: matir add FOLDER --db {path}",
    errors.GalleryEmpty: "Add some: matir add FOLDER --db {path}",
    errors.GalleryUnrecovered: "Any command that may write to it rolls it back: matir info --db {path}",
    errors.GalleryDamaged: (
        "Restore a copy of it, or move it away and index the photos again: matir add FOLDER --db {path}"
    ),
    errors.IndexDamaged: "Rebuild it: matir compact --db {path}",
    errors.GalleryFailed: "If a check finds nothing, please report this: matir doctor --db {path}",
    errors.SavedSearchUnknown: "List those that there are: matir saved list --db {path}",
    errors.PhotoUnknown: "List what it holds: matir ls --db {path}",
}
"""Remedies with a command on the gallery at {path}, quoted for a shell."""

_REMEDIES: dict[type[errors.MatirError], str] = {
    errors.NotAGallery: "Name another file with --db.",
    errors.GalleryTooNew: "Upgrade matir-cli.",
    errors.GalleryChanged: "Run the same command again.",
    errors.GalleryIOFailed: "Check the disk's free space, quota and health, and run the same command again.",
    errors.GalleryBusy: "Try again when that command has ended.",
    errors.GalleryNameInvalid: "Rename it or its folder, or name another file with --db.",
    errors.GalleryReadOnly: "Check the permissions of the file and its folder.",
    errors.DiskFull: "Free some space and run the same command again.",
    errors.RoomTooSmall: "Free some space, or move the gallery to another disk; it was not changed.",
    errors.SavedSearchExists: "Choose another name, or replace it with --replace.",
    errors.MergeIntoItself: "Name another gallery, or choose the target with --db.",
    errors.OtherProposer: (
        "Name a set that has both, in a TOML file of your own; `matir help models` shows how to write one."
    ),
    errors.ModelMismatch: (
        "Leave out --models, to use those it was made with; or name another file with --db (in matir eval, "
        "another folder with --out). New vectors by another encoder: matir reencode --models SET."
    ),
    errors.ModelSetUnknown: "Use one of these names, or the path of a TOML file.",
    errors.ModelSetInvalid: "Correct it in the TOML file.",
    errors.PartMissing: "Choose another model set with --models.",
    errors.ClusterUnavailable: (
        "Check the address, and that this machine is part of the cluster: ray status; or leave the address "
        "out for one on this machine."
    ),
    errors.ClusterTooSmall: "Choose a lower --workers, --cpus-per-worker or --gpus-per-worker.",
    errors.WorkerRefused: (
        "Install the same version and models there (matir models pull SET), or send the models: --ship-models"
    ),
    errors.WorkersFailed: "Look into Ray's logs; what was indexed is kept, the same command goes on.",
    errors.WeightsChanged: (
        "Fetch it again: matir models pull SET; or accept it, if no hash of it is published: matir models "
        "pull --accept-changed SET"
    ),
    errors.CheckpointInvalid: "Put the right file there, or fetch it again: matir models pull SET",
    errors.MemoryTooSmall: f"Close other programs, or {STAGE_1_ALONE}",
    errors.ContextTooSmall: (
        "Shorten the query, or raise context_tokens (or lower max_pixels) in the model set."
    ),
    errors.DownloadFailed: (
        "Run the same command again to resume; or put the file by hand where this says: matir models path SET"
    ),
    errors.EngineFailed: "Try --device cpu; this checks the files of the models: matir models verify SET",
    errors.PhotoUnreadable: "Choose another photo.",
    errors.PhotoInaccessible: "Check its name, its permissions and its disk.",
    errors.DecoderUnavailable: "Check the installation with: matir doctor",
    errors.AnnotationsInvalid: "Correct the file or fetch it again, and check the folder of --images.",
    errors.RegionFileInvalid: "Check the name; the forms that are read are described in: matir help regions",
    errors.FolderVanished: "Mount its volume. If the files were moved or deleted for good, use --drop-all.",
    errors.OutputError: "Choose another name or place, or free some space.",
    errors.OutputExists: "Choose another name, or replace the file with --force.",
    errors.SidecarUnusable: "Repair it, or move it away and run the same command again.",
    errors.SidecarRegionsUnusable: "To write only the keyword: --region none",
    errors.SidecarElsewhere: "To write to that file: --follow-links",
    errors.ServerFailed: "Choose another --port or --host, or set XDG_RUNTIME_DIR to a private folder.",
    errors.DeviceUnavailable: "Use --device auto, or --device cpu.",
    errors.ExampleOutside: "Count pixels from the top left corner of the photo as it is displayed.",
    errors.ExampleBlank: "Draw a box tight around an object with --box.",
    errors.QueryEmpty: 'Describe an object, such as: matir find "dog led by rope"',
    errors.QueryNotText: "Encode it as UTF-8.",
    errors.DefaultsInvalid: "Correct it: matir config --edit; or run without it: MATIR_CONFIG= matir ...",
    errors.QueryContradicts: "Describe with --not, or show with --unlike, what only the wrong photos show.",
}
