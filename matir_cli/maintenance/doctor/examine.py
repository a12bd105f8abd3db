"""`matir doctor`: whether all that the commands stand on is in order, from Python to the gallery."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import apsw
import sqlite_vec
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from matir_cli import errors
from matir_cli.engines.registry import JUDGES, PROPOSERS, REGION_ENCODERS, TEXT_ENCODERS
from matir_cli.errors import MatirError
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import open_read_only
from matir_cli.maintenance.doctor.findings import Finding, FindingState, ok, problem, warning
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.model_sets.catalogue import ModelFile, ModelSet, load_model_set, model_set_names
from matir_cli.model_sets.session import INDEXING_PARTS, locate_part
from matir_cli.model_sets.weights import FileState, local_path, verify_model_set
from matir_cli.progress import ProgressObserver

DISTRIBUTION = "matir-cli"

LITTLE_ROOM = 1_000_000_000
"""Bytes on the gallery's disk; a photo takes some 200 kB."""

# All that a broken or mismatched package was seen to raise when it is imported.
_IMPORT_ERRORS = (ImportError, OSError, RuntimeError, AttributeError, ValueError, TypeError)


def examine_installation(
    path: Path, default_set: str, *, deep: bool, progress: ProgressObserver
) -> Iterator[Finding]:
    """Look at everything, one finding at a time.

    Args:
        path: of the gallery; there need be none.
        default_set: the model set that a new gallery would be made with.
        deep: read every file of every model set through, and all of the gallery.
        progress: watches files being read through.
    """
    yield _python()
    yield from _packages()
    yield _sqlite()
    yield from _engines()
    yield from _devices()
    yield _heic()
    yield _terminal()
    yield from _model_sets(_used_set(path) or default_set, deep, progress)
    yield _room(path)
    yield from examine_gallery(path, deep=deep)
    yield from _gallery_models(path)


# Programs
def _python() -> Finding:
    text = f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    try:
        wanted = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    except metadata.PackageNotFoundError:
        return warning("python", f"{text}; {DISTRIBUTION} is not installed, it runs from its folder", "")
    if not SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        return problem("python", text, f"Use Python {wanted}")
    return ok("python", text)


def _packages() -> Iterator[Finding]:
    """The packages that this one declares, and whether their versions are among those it was made for."""
    try:
        declared = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or ()]
    except metadata.PackageNotFoundError:
        return
    for wanted in declared:
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        remedy = f"pip install '{wanted.name}{wanted.specifier}'"
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield problem(wanted.name, "not installed", remedy)
            continue
        if wanted.specifier.contains(found, prereleases=True):
            yield ok(wanted.name, found)
        else:
            yield problem(wanted.name, f"{found}, wanted {wanted.specifier}", remedy)


def _sqlite() -> Finding:
    db = apsw.Connection(":memory:")
    try:
        db.enable_load_extension(True)
        db.load_extension(sqlite_vec.loadable_path())
        version = db.execute("select vec_version()").get
    except (apsw.Error, OSError) as error:
        return problem("sqlite", str(error), "pip install --force-reinstall apsw sqlite-vec==0.1.9")
    finally:
        db.close()
    return ok("sqlite", f"{apsw.sqlite_lib_version()}, sqlite-vec {version}")


def _engines() -> Iterator[Finding]:
    """Whether each engine's module, and so all that it stands on, can be imported."""
    kinds = (PROPOSERS, REGION_ENCODERS, TEXT_ENCODERS, JUDGES)
    modules = {loader.partition(":")[0] for kind in kinds for loader in kind.values()}
    for module in sorted(modules):
        name = f"engine {module.removeprefix('matir_cli.engines.')}"
        try:
            importlib.import_module(module)
        except _IMPORT_ERRORS as error:
            remedy = f"pip install --force-reinstall {DISTRIBUTION}"
            yield problem(name, f"does not load: {error}", remedy)
        else:
            yield ok(name, "loads")


# The machine
def _devices() -> Iterator[Finding]:
    try:
        from matir_cli.engines.llama_cpp.bindings import available_threads, gpu_available
        from matir_cli.engines.qwen_vl.preflight import available_memory
    except _IMPORT_ERRORS:
        pass  # `_engines` has told of it
    else:
        memory = f"{available_memory() / 1e9:.1f} GB of memory can be had"
        yield ok("cpu", f"{available_threads()} of {os.cpu_count()} cores, {memory}")
    try:
        import torch
    except _IMPORT_ERRORS:
        return
    if torch.cuda.is_available():
        found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        listed = ", ".join(f"{card.name} ({card.total_memory / 1e9:.0f} GB)" for card in found)
        yield ok("gpu", f"cuda: {listed}")
    elif torch.backends.mps.is_available():
        yield ok("gpu", "mps")
    else:
        yield ok("gpu", "none that torch can use; indexing on the CPU takes seconds a photo")
        return
    if gpu_available():
        yield ok("llama.cpp", "built to use a GPU")
    else:
        flag = "-DGGML_CUDA=on" if torch.cuda.is_available() else "-DGGML_METAL=on"
        remedy = f"CMAKE_ARGS={flag} pip install --force-reinstall --no-cache-dir llama-cpp-python==0.3.36"
        yield warning("llama.cpp", "built without GPU: the judge runs on the CPU", remedy)


def _heic() -> Finding:
    try:
        import pillow_heif
    except ImportError:
        return warning("heic", "HEIC photos cannot be read", f"pip install '{DISTRIBUTION}[heic]'")
    return ok("heic", f"pillow-heif {pillow_heif.__version__}")


def _terminal() -> Finding:
    encoding = sys.stdout.encoding or ""
    kind = os.environ.get("TERM") or "of no known kind"
    text = f"{kind}, {encoding}" if sys.stdout.isatty() else f"none on standard output, {encoding}"
    if encoding.lower().replace("-", "") != "utf8":
        return warning("terminal", text, "Names of files may be garbled: use a UTF-8 locale.")
    return ok("terminal", text)


def _room(path: Path) -> Finding:
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB are free where the gallery lies, {folder}"
    if not os.access(path if path.exists() else folder, os.W_OK):
        return warning("room", f"{path} cannot be written", "Check its permissions: it can only be searched.")
    return warning("room", text, "Make room.") if free < LITTLE_ROOM else ok("room", text)


# Models
def _used_set(path: Path) -> str | None:
    """The model set of the gallery at `path`; None where it says none, for whatever reason."""
    try:
        with open_read_only(path) as gallery:
            return gallery.model_set()
    except (MatirError, ValueError):
        return None


def _model_sets(used: str, deep: bool, progress: ProgressObserver) -> Iterator[Finding]:
    """The packaged sets and the one in use, which alone needs to be here."""
    for name in sorted({*model_set_names(), used}):
        title = f"models {name}"
        try:
            chosen = load_model_set(name)
        except MatirError as error:
            yield Finding(title, FindingState.PROBLEM, fault=error)
            continue
        if deep:
            checked = list(verify_model_set(chosen, progress))
            missing = {item.file.part for item in checked if item.state is FileState.MISSING}
            faults = [item.fault for item in checked if item.fault is not None]
        else:
            missing = {file.part for file in chosen.files if local_path(file) is None}
            faults = [fault for fault in map(_size_fault, chosen.files) if fault is not None]
        if faults:
            yield Finding(title, FindingState.PROBLEM, fault=faults[0])
        else:
            yield _presence(title, chosen, missing, used=name == used)


def _presence(title: str, chosen: ModelSet, missing: set[str], *, used: bool) -> Finding:
    remedy = f"Fetch them: matir models pull {chosen.handle}"
    if not missing:
        return ok(title, "all files are here")
    text = f"files of {', '.join(sorted(missing))} are not here"
    if not used:
        return ok(title, text, remedy)
    if missing == {"judge"}:
        return warning(title, f"{text}: no reranking", remedy)
    return problem(title, text, remedy)


def _size_fault(file: ModelFile) -> errors.CheckpointInvalid | None:
    """A file that is here with another size than it must have; nothing is read through."""
    path = local_path(file)
    if path is None or not file.exact or path.stat().st_size == file.bytes:
        return None
    reason = f"has {path.stat().st_size} bytes, not the {file.bytes} of the model set"
    return errors.CheckpointInvalid(path, reason)


def _gallery_models(path: Path) -> Iterator[Finding]:
    """Whether the models that are here are those that the gallery was made with."""
    name = "gallery models"
    if _used_set(path) is None:
        return
    try:
        with open_read_only(path) as gallery:
            yield _compare(gallery, name)
    except errors.WeightsMissing:
        yield ok(name, "cannot be compared: they are not here")
    except (MatirError, ValueError) as error:
        fault = error if isinstance(error, MatirError) else None
        yield Finding(name, FindingState.PROBLEM, str(error), fault=fault)


def _compare(gallery: GalleryFile, name: str) -> Finding:
    handle = gallery.model_set()
    assert handle is not None  # the caller has asked
    chosen = load_model_set(handle)
    for role in INDEXING_PARTS:
        gallery.check_model(role, locate_part(chosen, role).identity)
    return ok(name, f"those of the model set {chosen.name}")
