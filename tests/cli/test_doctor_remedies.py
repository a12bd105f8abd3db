"""What `matir doctor` advises about a gallery: each command works when it is pasted, and helps."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

from matir_cli import errors
from matir_cli.cli.boundary import explain
from matir_cli.maintenance.doctor.findings import Finding, FindingState
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.maintenance.doctor.packages import requirement
from tests.support.process import Indexed, matir

ROOT = Path(errors.__file__).parents[2]


@dataclass(frozen=True)
class Patient:
    """A gallery of drawn pictures, and the folder of these pictures."""

    gallery: Path
    photos: Path

    def execute(self, statement: str, *values: str) -> None:
        """Change the gallery as another program would, without checks."""
        db = apsw.Connection(str(self.gallery))
        db.pragma("foreign_keys", False)
        db.execute(statement, values)
        db.close()

    def found(self, name: str, path: Path | None = None) -> Finding:
        """The finding of the check `name`."""
        return {each.name: each for each in examine_gallery(path or self.gallery, deep=True)}[name]


@pytest.fixture
def patient(indexed: Indexed, tmp_path: Path) -> Patient:
    photos = Path(shutil.copytree(indexed.photos, tmp_path / "my photos"))
    patient = Patient(Path(shutil.copy(indexed.gallery, tmp_path / "my gallery.db")), photos)
    patient.execute("update files set path = replace(path, ?, ?)", str(indexed.photos), str(photos))
    return patient


def delete_gallery(patient: Patient) -> None:
    patient.gallery.unlink()


def delete_photo(patient: Patient) -> None:
    (patient.photos / "0000.png").unlink()


def move_folder(patient: Patient) -> None:
    gone = patient.photos / "gone for good"
    change = "update files set path = replace(path, ?, ?) where photo_id < 4"
    patient.execute(change, str(patient.photos), str(gone))


def changed(statement: str) -> Callable[[Patient], None]:
    return lambda patient: patient.execute(statement)


WRONG: list[tuple[str, Callable[[Patient], None]]] = [
    ("gallery", delete_gallery),
    ("gallery photos", changed("delete from files where photo_id = 3")),
    ("gallery photos", changed("delete from regions where photo_id = 3")),
    ("gallery index", changed("delete from blocks; delete from loose")),
    ("gallery previews", changed("update previews set jpeg = x'00'")),
    ("gallery notes", changed("insert into notes values (3, 'picture', 'cut')")),
    ("gallery files", delete_photo),
    ("gallery files", move_folder),
    (
        "gallery space",
        changed("insert into questions values (9, 'a', hex(zeroblob(1000000))); delete from questions"),
    ),
]
"""The name of a check, and what makes it advise something."""


@pytest.mark.parametrize(("name", "harm"), WRONG)
def test_following_what_doctor_advises_helps(
    patient: Patient, tmp_path: Path, name: str, harm: Callable[[Patient], None]
) -> None:
    harm(patient)
    (command,) = re.findall(r"matir .*", patient.found(name).remedy)
    words = shlex.split(command)[1:]
    assert words[-2:] in (["--db", str(patient.gallery)], ["--db", "NEWFILE"])
    names = {"FOLDER": str(patient.photos), "NEWFILE": str(tmp_path / "new.db")}
    done = matir(*(names.get(word, word) for word in words), MATIR_MODEL_SET="tiny")
    assert done.returncode in (0, 3), done.stderr  # 3: the folder of pictures holds junk as well
    after = patient.found(name, tmp_path / "new.db" if "NEWFILE" in words else None)
    assert after.state is FindingState.OK


def test_every_check_of_a_gallery_names_it_in_its_commands() -> None:
    source = (ROOT / "matir_cli/maintenance/doctor/integrity.py").read_text()
    assert re.findall(r"matir [a-z]+ .*", source.partition("RESTORE")[2].partition("\n")[2]) == []
    assert source.count("on_gallery(") >= 8


def test_remedies_state_the_versions_that_are_required() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for name in ("apsw", "sqlite-vec", "llama-cpp-python"):
        (line,) = [each for each in declared if re.match(rf"{name}(?![a-z-])", each)]
        (word,) = shlex.split(requirement(name))
        assert word.startswith(name)
        assert {*re.split("[, ]+", word)} == {*re.split("[, ]+", line)}
    assert requirement("sqlite-vec") in explain(errors.ExtensionUnusable("sqlite-vec", "broken"))[1]


def test_no_version_of_a_package_is_written_into_a_message() -> None:
    sources = [*(ROOT / "matir_cli").rglob("*.py")]
    assert len(sources) > 200
    assert [path.name for path in sources if re.search(r"[a-z]==[0-9]", path.read_text())] == []
