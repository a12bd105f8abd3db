"""The one place where errors become text and exit codes.

Exit codes: 0 done, 1 nothing found, 2 an error, 3 done but some files were skipped,
130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

import click
from click.exceptions import Exit
from click.shell_completion import shell_complete

from matir_cli import errors
from matir_cli.output.terminal import printable

ERROR = 2
SKIPPED = 3
INTERRUPTED = 130

STAGE_1_ALONE = "or ask for stage 1 alone with --no-rerank."

PROGRAM = "matir"

COMPLETION_VARIABLE = "_MATIR_COMPLETE"
"""Set by the shell's completion script to what it wants to know."""

DEBUG_VARIABLE = "MATIR_DEBUG"
"""Set, it shows the traceback of an error that is not one of ours."""


def run(command: click.Command) -> NoReturn:
    """Run the command line and end the process; no traceback reaches a user."""
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
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        say(f"an error that should not happen: {type(error).__name__}: {error}")
        say(f"please report it with the output of the same command under {DEBUG_VARIABLE}=1")
        _leave_at_once(ERROR)
    sys.exit(code)


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


def _leave_at_once(code: int) -> NoReturn:
    """End without waiting for a stage's thread that is deep in a model; Python's own end would crash it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def say(message: str) -> None:
    """One line of talk on stderr, harmless for a terminal."""
    click.echo(f"matir: {printable(message)}", err=True)


def explain(error: errors.MatirError) -> tuple[str, str]:
    """What is wrong, and what to do about it."""
    match error:
        case errors.GalleryError():
            return _explain_gallery(error)
        case errors.ModelSetError():
            return _explain_models(error)
        case errors.EngineFailed(reason=reason):
            return (
                f"a model could not compute an answer: {reason}.",
                "Try --device cpu, or a smaller model set.",
            )
        case errors.PhotoUnreadable(path=path, reason=reason):
            return f"{path} cannot be read: {reason}.", "Choose another photo."
        case errors.AnnotationsInvalid(path=path, reason=reason):
            problem = f"{path} cannot be evaluated against: {reason}."
            return problem, "Correct it or fetch it again, and check which folder --images names."
        case errors.FolderVanished(path=path, count=0):
            return f"there is no {path}.", "Check the name."
        case errors.FolderVanished(path=path, count=count):
            problem = f"none of the {count} files that the gallery knows in {path} is there any more."
            return problem, "Mount its volume; if they were moved or deleted, say so with --drop-all."
        case errors.OutputExists(path=path):
            return f"{path} exists; it was kept.", "Name another file, or replace it with --force."
        case errors.SidecarUnusable(path=path, reason=reason):
            remedy = "Repair it or move it away; --region none writes the keyword alone."
            return f"{path} was left as it is: {reason}.", remedy
        case errors.OutputError(path=path, reason=reason):
            return f"{path} cannot be written: {reason}.", "Choose another place or make room."
        case errors.PackageMissing(extra=extra):
            return f"--{extra} needs a package that is not installed.", f"pip install 'matir-cli[{extra}]'"
        case errors.DeviceUnavailable(device=device):
            return f"there is no {device} device here.", "Use --device auto, or --device cpu."
        case errors.QueryEmpty():
            return "the query is empty.", 'Describe an object, such as: matir find "dog led by rope"'
        case errors.QueryContradicts(text=text):
            problem = f"not to find {text!r} leaves nothing to find: it says the same as the query."
            return problem, "Say in --not what the wrong photos have that the right ones lack."
        case errors.ExampleOutside(path=path, width=width, height=height):
            problem = f"the box or point is not in {path}, which is {width} x {height} pixels."
            return problem, "Count pixels from the top left corner of the photo as it is shown."
        case errors.ExampleBlank(path=path):
            return f"no object is seen there in {path}.", "Draw a box tight around it."
        case _:
            return f"{type(error).__name__}: {error}.", ""


def _explain_gallery(error: errors.GalleryError) -> tuple[str, str]:
    path = error.path
    match error:
        case errors.GalleryMissing():
            return f"there is no gallery at {path}.", "Make one with: matir add FOLDER"
        case errors.GalleryEmpty():
            return f"the gallery {path} holds no photo yet.", "Add some with: matir add FOLDER"
        case errors.NotAGallery():
            return f"{path} is not a gallery; it was left as it is.", "Name another file with --db."
        case errors.GalleryTooNew(found=found, known=known):
            problem = f"{path} was written by a newer version (schema {found}; this one knows {known})."
            return problem, "Upgrade matir-cli."
        case errors.GalleryTooOld(found=found, known=known):
            problem = f"{path} was written by an older version (schema {found}; this one knows {known})."
            return problem, f"Any command on it, such as matir info --db {path}, brings it up to date."
        case errors.GalleryDamaged(reason=reason):
            return f"{path} is damaged: {reason}.", "Restore a copy, or make it anew with: matir add"
        case errors.GalleryIOFailed(reason=reason):
            problem = f"{path} could not be read or written: {reason}; every photo added before is kept."
            return problem, "Check the room, quota and health of the disk, and run the same command again."
        case errors.GalleryBusy():
            return f"{path} is in use by another command.", "Try again when that one has ended."
        case errors.GalleryReadOnly():
            return f"{path} cannot be opened for this.", "Check the permissions of the file and its folder."
        case errors.DiskFull():
            problem = f"there is no room left for {path}; every photo added before is kept."
            return problem, "Make room and run the same command again."
        case errors.RoomTooSmall(needed=needed, available=available):
            wanted, there = f"{needed / 1e9:.2f} GB", f"{available / 1e9:.2f} GB"
            problem = f"this takes {wanted} of room beside {path}; {there} are free."
            return problem, "Make room, or put the gallery on another disk; it was left as it is."
        case errors.MergeIntoItself():
            return f"{path} is the gallery to merge into.", "Name the other one, or this one with --db."
        case errors.PhotoUnknown(name=name):
            return f"{path} holds no photo {name}.", "See what it holds with: matir ls"
        case errors.ModelMismatch(role=role, stored=stored, wanted=wanted):
            problem = f"{path} was made with the {role} {stored}, not {wanted}: their results do not compare."
            return (
                problem,
                "Use the models it was made with, or another file with --db (in matir eval, --out).",
            )
        case _:
            return f"{type(error).__name__}: {path}.", ""


def _explain_models(error: errors.ModelSetError) -> tuple[str, str]:
    match error:
        case errors.ModelSetUnknown(name=name, known=known):
            return f"there is no model set {name}.", f"There are: {', '.join(known)}; or give a TOML file."
        case errors.ModelSetInvalid(source=source, reason=reason):
            return f"the model set {source} is wrong: {reason}.", "Correct it in the TOML file."
        case errors.PartMissing(model_set=name, part=part):
            remedy = (
                f"Name another with --models, {STAGE_1_ALONE}"
                if part == "judge"
                else "Name another with --models."
            )
            return f"the model set {name} has no {part}.", remedy
        case errors.WeightsMissing(model_set=name, files=files, part=part):
            names = ", ".join(sorted(file.name for file in files))
            remedy = f"Fetch them: matir models pull {name}"
            if part == "judge":
                remedy += f" -- {STAGE_1_ALONE}"
            return f"weights of the model set {name} are missing: {names}.", remedy
        case errors.WeightsChanged(path=path, expected=expected, found=found):
            problem = f"{path} has the SHA-256 {found}, expected {expected}."
            return problem, "Pull it again; if the new file is meant: matir models pull --accept-changed SET"
        case errors.CheckpointInvalid(path=path, reason=reason):
            return f"{path} cannot be loaded: {reason}.", "Check the file, or fetch it again."
        case errors.MemoryTooSmall(path=path, needed=needed, available=available):
            problem = (
                f"{path} needs {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB can be had."
            )
            return problem, "Close other programs, or use a smaller model set (--models lite)."
        case errors.ContextTooSmall(what=what, needed=needed, available=available):
            problem = f"{what} takes {needed} tokens; the judge's context has room for {available}."
            return (
                problem,
                "Shorten the query, or raise context_tokens (or lower max_pixels) in the model set.",
            )
        case errors.DownloadFailed(source=source, reason=reason):
            return f"{source} could not be fetched: {reason}.", "Run the same command again to resume."
        case _:
            return f"{type(error).__name__}: {error}.", ""
