"""The installed program: wheel and editable install hold the models and the manual."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Built from a copy: two at a time, of tests in two processes, would share the folder `build`.
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked("."):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def tracked(folder: str) -> set[str]:
    """The files below `folder` that belong to the project, as paths from it."""
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, check=True)
    return {line.removeprefix(f"{folder}/") for line in listed.stdout.decode().splitlines()}


def test_the_wheel_holds_the_package_and_the_models(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"matir_cli/models/{name}" for name in tracked("models")} <= names
    pictures = {name for name in tracked("matir_cli") if name.startswith("manual/pictures/")}
    assert pictures
    assert {f"matir_cli/{name}" for name in tracked("matir_cli") - pictures} <= names
    assert not any(name.startswith("matir_cli/manual/pictures") for name in names)
    assert not any(name.startswith(("tests/", "models/")) for name in names)


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run_unpacked(folder: Path, *words: str) -> list[str]:
    """Run the command of the unpacked wheel; the lines it prints, after a line with the package's path."""
    # -S -E: the editable install of this environment must not answer in its place.
    site = [path for path in sys.path if path.endswith("site-packages")]
    script = (
        f"import sys; sys.path.extend({site!r}); sys.path.insert(0, sys.argv[1]); "
        "import matir_cli; print(matir_cli.__file__, flush=True); "
        f"from matir_cli.cli.main import main; sys.argv[1:] = {[*words]!r}; main()"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", script, str(folder)],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().splitlines()


def test_the_unpacked_wheel_runs(unpacked: Path) -> None:
    package, *paths = run_unpacked(unpacked, "models", "path", "tiny")
    assert Path(package).is_relative_to(unpacked)
    assert len(paths) >= 4
    for line in paths:
        path = Path(line.split("\t")[1])
        assert path.is_relative_to(unpacked)
        assert path.is_file()


def test_the_unpacked_wheel_shows_the_manual(unpacked: Path) -> None:
    package, *lines = run_unpacked(unpacked, "help", "searching")
    assert Path(package).is_relative_to(unpacked)
    assert lines == (ROOT / "matir_cli/manual/searching.md").read_text(encoding="utf-8").splitlines()
    assert "searching" in "\n".join(run_unpacked(unpacked, "help"))


def test_the_editable_install_finds_the_models(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "matir_cli", "models", "path", "tiny"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    for line in done.stdout.decode().splitlines():
        assert Path(line.split("\t")[1]).is_relative_to(ROOT / "models")


def test_every_package_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in (ROOT / "matir_cli").rglob("__init__.py")}
    folders |= {path.parent for path in (ROOT / "models").rglob("__init__.py")}
    expected = {
        ".".join(path.relative_to(ROOT).parts).replace("models", "matir_cli.models", 1)
        if path.is_relative_to(ROOT / "models")
        else ".".join(path.relative_to(ROOT).parts)
        for path in folders
    }
    assert set(declared) == expected
