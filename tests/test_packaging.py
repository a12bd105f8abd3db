"""What a user installs: the wheel and the editable install both bring the models along."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def tracked(folder: str) -> set[str]:
    """The files below `folder` that belong to the project, as paths from it."""
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, check=True)
    return {line.removeprefix(f"{folder}/") for line in listed.stdout.decode().splitlines()}


def test_the_wheel_holds_the_package_and_the_models(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"matir_cli/models/{name}" for name in tracked("models")} <= names
    assert {f"matir_cli/{name}" for name in tracked("matir_cli")} <= names
    assert not any(name.startswith(("tests/", "models/")) for name in names)


def test_the_unpacked_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import matir_cli; print(matir_cli.__file__); "
        "from matir_cli.cli.main import main; sys.argv[1:] = ['models', 'path', 'tiny']; main()"
    )
    # -S -E: the editable install of this environment must not answer in its place.
    site = next(path for path in sys.path if path.endswith("site-packages"))
    script = f"import sys; sys.path.append({site!r}); {script}"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", script, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    package, *paths = done.stdout.decode().splitlines()
    assert Path(package).is_relative_to(tmp_path)
    assert len(paths) >= 4
    for line in paths:
        path = Path(line.split("\t")[1])
        assert path.is_relative_to(tmp_path)
        assert path.is_file()


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
