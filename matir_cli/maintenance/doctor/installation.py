"""All checks of `matir doctor`: Python, packages, devices, models, the gallery."""

from __future__ import annotations

import importlib
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import apsw
import sqlite_vec
from packaging.specifiers import SpecifierSet

from matir_cli import errors
from matir_cli.engines.registry import JUDGES, PROPOSERS, REGION_ENCODERS, TEXT_ENCODERS
from matir_cli.errors import MatirError
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.read_only import open_read_only
from matir_cli.maintenance.doctor.findings import Finding, FindingState, ok, problem, warning
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.maintenance.doctor.judge import examine_judge, examine_llama_cpp
from matir_cli.maintenance.doctor.packages import (
    DISTRIBUTION,
    reinstall_sqlite,
    required_packages,
    requirement,
)
from matir_cli.model_sets.catalogue import ModelSet, load_model_set, model_set_names
from matir_cli.model_sets.choice import choose_set
from matir_cli.model_sets.presets import split_preset, title_of
from matir_cli.model_sets.session import INDEXING_PARTS, locate_part
from matir_cli.model_sets.sources import ModelFile
from matir_cli.model_sets.weights import FileState, check_size, local_path, verify_model_set
from matir_cli.progress import ProgressObserver

LITTLE_ROOM = 1_000_000_000
"""Free bytes on the gallery's disk below which a warning is due; a photo takes some 200 kB."""

_IMPORT_ERRORS = (ImportError, OSError, RuntimeError, AttributeError, ValueError, TypeError)
"""Exceptions that the import of a broken or mismatched package was seen to raise."""


def examine_installation(
    path: Path, default_set: str, *, deep: bool, progress: ProgressObserver
) -> Iterator[Finding]:
    """Run all checks; yields one finding after another.

    Args:
        path: path of the gallery, which need not exist.
        default_set: name of the model set that a new gallery would be made with.
        deep: hash every file of every model set, and check the whole gallery instead of a sample.
        progress: observer of the files being hashed.
    """
    yield _python()
    yield from _packages()
    yield _sqlite()
    yield from _engines()
    yield from examine_llama_cpp()
    yield from _devices()
    yield _heic()
    yield _raw()
    yield _ray()
    yield _terminal()
    used = _used_set(path, default_set)
    yield from _model_sets(used, deep, progress)
    if used is not None:
        yield from examine_judge(used)
    yield _disk_space(path)
    yield from examine_gallery(path, deep=deep)
    yield from _gallery_models(path)


# Programs and packages
def _python() -> Finding:
    """Check the version of Python."""
    text = f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    try:
        required = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    except metadata.PackageNotFoundError:
        return warning("python", f"{text}; {DISTRIBUTION} is not installed and runs from its source folder")
    if not SpecifierSet(required).contains(platform.python_version(), prereleases=True):
        return problem("python", text, f"Use Python {required}")
    return ok("python", text)


def _packages() -> Iterator[Finding]:
    """Check that each required package is installed in an accepted version."""
    for required in required_packages():
        remedy = f"pip install {requirement(required.name)}"
        try:
            installed = metadata.version(required.name)
        except metadata.PackageNotFoundError:
            yield problem(required.name, "not installed", remedy)
            continue
        if required.specifier.contains(installed, prereleases=True):
            yield ok(required.name, installed)
        else:
            yield problem(required.name, f"{installed} installed, {required.specifier} required", remedy)


def _sqlite() -> Finding:
    """Check that SQLite loads the sqlite-vec extension."""
    db = apsw.Connection(":memory:")
    try:
        db.enable_load_extension(True)
        db.load_extension(sqlite_vec.loadable_path())
        version = db.execute("select vec_version()").get
    except (apsw.Error, OSError) as error:
        return problem("sqlite", str(error), reinstall_sqlite())
    finally:
        db.close()
    return ok("sqlite", f"{apsw.sqlite_lib_version()}, sqlite-vec {version}")


def _engines() -> Iterator[Finding]:
    """Check that each engine's module, and so everything it imports, can be imported."""
    kinds = (PROPOSERS, REGION_ENCODERS, TEXT_ENCODERS, JUDGES)
    modules = {loader.partition(":")[0] for kind in kinds for loader in kind.values()}
    for module in sorted(modules):
        name = f"engine {module.removeprefix('matir_cli.engines.')}"
        try:
            importlib.import_module(module)
        except _IMPORT_ERRORS as error:
            remedy = f"pip install --force-reinstall {DISTRIBUTION}"
            yield problem(name, f"cannot be imported: {error}", remedy)
        else:
            yield ok(name, "can be imported")


# The machine
def _devices() -> Iterator[Finding]:
    """Report the CPU and its free memory, the GPU, and llama.cpp's use of it."""
    try:
        from matir_cli.engines.llama_cpp.bindings import available_threads, gpu_available
        from matir_cli.engines.memory import available_memory
    except _IMPORT_ERRORS:
        pass  # reported by `_engines`
    else:
        memory = f"{available_memory() / 1e9:.1f} GB of memory available"
        yield ok("cpu", f"{available_threads()} of {os.cpu_count()} cores, {memory}")
    try:
        import torch
    except _IMPORT_ERRORS:
        return
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        listed = ", ".join(f"{card.name} ({card.total_memory / 1e9:.0f} GB)" for card in cards)
        yield ok("gpu", f"cuda: {listed}")
    elif torch.backends.mps.is_available():
        yield ok("gpu", "mps")
    else:
        yield ok("gpu", "none that torch can use; indexing on the CPU takes seconds per photo")
        return
    if not gpu_available():
        flag = "-DGGML_CUDA=on" if torch.cuda.is_available() else "-DGGML_METAL=on"
        package = requirement("llama-cpp-python")
        remedy = f"CMAKE_ARGS={flag} pip install --force-reinstall --no-cache-dir {package}"
        yield warning("llama.cpp gpu", "built without GPU support: the judge runs on the CPU", remedy)


def _heic() -> Finding:
    """Check whether HEIC photos can be read."""
    try:
        import pi_heif
    except ImportError:
        return warning("heic", "HEIC photos cannot be read", f"pip install '{DISTRIBUTION}[heic]'")
    return ok("heic", f"pi-heif {pi_heif.__version__}")


def _raw() -> Finding:
    """Check whether cameras' raw files can be read."""
    try:
        import rawpy
    except ImportError:
        return warning("raw", "cameras' raw files are passed over", f"pip install '{DISTRIBUTION}[raw]'")
    return ok("raw", f"LibRaw {'.'.join(map(str, rawpy.libraw_version))}")


def _ray() -> Finding:
    """Check whether a cluster can be used, without loading Ray, which takes a second."""
    try:
        return ok("ray", f"Ray {metadata.version('ray')}")
    except metadata.PackageNotFoundError:
        return ok("ray", f"not installed; --ray needs it: pip install '{DISTRIBUTION}[ray]'")


def _terminal() -> Finding:
    """Check the encoding of standard output."""
    encoding = sys.stdout.encoding or ""
    kind = os.environ.get("TERM") or "unknown type"
    text = f"{kind}, {encoding}" if sys.stdout.isatty() else f"standard output is not a terminal, {encoding}"
    if encoding.lower().replace("-", "") != "utf8":
        return warning("terminal", text, "File names may be garbled: use a UTF-8 locale.")
    return ok("terminal", text)


def _disk_space(path: Path) -> Finding:
    """Check the free space on the gallery's disk, and that the gallery can be written."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free in the gallery's folder, {folder}"
    if not os.access(path if path.exists() else folder, os.W_OK):
        remedy = "Check its permissions: until then it can only be searched."
        return warning("room", f"{path} cannot be written", remedy)
    return warning("room", text, "Free some disk space.") if free < LITTLE_ROOM else ok("room", text)


# Models
def _used_set(path: Path, default_set: str) -> str | None:
    """Return the handle of the model set that commands on the gallery at `path` use.

    None if the gallery does not tell, since it cannot be read or names a set that cannot be used.
    """
    if not path.exists() or path.stat().st_size == 0:
        return default_set
    try:
        with open_read_only(path) as gallery:
            return choose_set(gallery, None).handle if gallery.model_set() is not None else default_set
    except MatirError:
        return None


def _model_sets(used: str | None, deep: bool, progress: ProgressObserver) -> Iterator[Finding]:
    """Check the packaged model sets and the one in use, which is the only one required."""
    names = set(model_set_names())
    if used is not None:  # with its preset, instead of the same set without one
        names = names - {split_preset(used)[0]} | {used}
    for name in sorted(names):
        title = f"models {title_of(name)}"
        try:
            model_set = load_model_set(name)
        except MatirError as error:
            yield Finding(title, FindingState.PROBLEM, fault=error)
            continue
        if deep:
            checked = list(verify_model_set(model_set, progress))
            missing = {item.file.part for item in checked if item.state is FileState.MISSING}
            faults = [item.fault for item in checked if item.fault is not None]
        else:
            missing = {file.part for file in model_set.files if local_path(file) is None}
            faults = [fault for fault in map(_size_fault, model_set.files) if fault is not None]
        if faults:
            yield Finding(title, FindingState.PROBLEM, fault=faults[0])
        else:
            yield _completeness(title, model_set, missing, used=name == used)


def _completeness(title: str, model_set: ModelSet, missing: set[str], *, used: bool) -> Finding:
    """Make the finding for the parts whose files are `missing`."""
    remedy = f"Fetch them: matir models pull {shlex.quote(model_set.handle)}"
    if not missing:
        return ok(title, "all files are present")
    text = f"files are missing: {', '.join(sorted(missing))}"
    if not used:
        return ok(title, text, remedy)
    if missing == {"judge"}:
        return warning(title, f"{text}; results are not reranked", remedy)
    return problem(title, text, remedy)


def _size_fault(file: ModelFile) -> errors.CheckpointInvalid | None:
    """Return the fault of a file that is present with a wrong size; the file is not read."""
    path = local_path(file)
    if path is None:
        return None
    try:
        check_size(file, path, path.stat().st_size)
    except errors.CheckpointInvalid as fault:
        return fault
    return None


def _gallery_models(path: Path) -> Iterator[Finding]:
    """Check that the models on this machine are those that the gallery was made with.

    A gallery that cannot be opened has been reported by then.
    """
    name = "gallery models"
    try:
        gallery = open_read_only(path)
    except MatirError:
        return
    try:
        with gallery:
            if gallery.model_set() is not None:
                yield _compare_models(gallery, name)
    except errors.WeightsMissing:
        yield ok(name, "cannot be compared: their files are missing")
    except MatirError as error:
        yield Finding(name, FindingState.PROBLEM, fault=error)


def _compare_models(gallery: GalleryFile, name: str) -> Finding:
    """Compare the gallery's models with the files of its model set; raises ModelMismatch."""
    model_set = choose_set(gallery, None)
    for role in INDEXING_PARTS:
        gallery.check_model(role, locate_part(model_set, role).identity)
    return ok(name, f"those of the model set {model_set.title}")
