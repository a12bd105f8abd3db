"""Model files on disk: located, hashed once, compared with what they should be."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from matir_cli.errors import CheckpointInvalid, PartMissing, WeightsChanged, WeightsMissing
from matir_cli.model_sets.catalogue import ModelSet, load_model_set
from matir_cli.model_sets.sources import ModelFile, UrlSource
from matir_cli.model_sets.weights import (
    FileState,
    expected_path,
    forget_hash,
    locate_files,
    url_path,
    verify_model_set,
)
from matir_cli.progress import no_progress

CONTENTS = {"visual": b"visual weights", "text": b"text weights", "vocabulary": b"{}"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models folder."""
    monkeypatch.setenv("MATIR_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def own_set(folder: Path, declared: str = "") -> ModelSet:
    """A set whose encoder is local, and whose proposer has to be fetched."""
    folder.mkdir(exist_ok=True)
    for role, content in CONTENTS.items():
        (folder / f"{role}.bin").write_bytes(content)
    tables = "".join(f'[encoder.files.{role}]\npath = "{role}.bin"\n' for role in CONTENTS)
    (folder / "mine.toml").write_text(
        f"""
        name = "mine"
        description = "x"
        [proposer]
        name = "p"
        engine = "sam2"
        licence = "MIT"
        [proposer.files.checkpoint]
        url = "https://example.org/sam2.pt"
        bytes = 7
        {declared}
        [encoder]
        name = "e"
        engine = "alpha_clip"
        licence = "MIT"
        [encoder.options]
        transform = "squash"
        {tables}
        """
    )
    return load_model_set(str(folder / "mine.toml"))


def checkpoint(model_set: ModelSet) -> ModelFile:
    return model_set.part("proposer").files[0]


def put_file(model_set: ModelSet, content: bytes) -> Path:
    path = expected_path(checkpoint(model_set))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_an_engine_gets_options_files_and_identity(home: Path, tmp_path: Path) -> None:
    config = locate_files(own_set(tmp_path / "a"), "encoder")
    assert (config.engine, config.options) == ("alpha_clip", {"transform": "squash"})
    assert config.files == {role: tmp_path / "a" / f"{role}.bin" for role in CONTENTS}
    lines = "".join(f"{role} {sha(CONTENTS[role])}\n" for role in sorted(CONTENTS))
    assert (config.identity.name, config.identity.weight_hash) == ("e", sha(lines.encode()))
    assert list(home.glob(".record/*.json")), "the next start should not hash again"


def test_identity_follows_every_file_of_the_part(tmp_path: Path) -> None:
    first = locate_files(own_set(tmp_path / "a"), "encoder").identity
    model_set = own_set(tmp_path / "b")
    assert locate_files(model_set, "encoder").identity == first, "the folder does not matter"
    (tmp_path / "b" / "vocabulary.bin").write_bytes(b"[]")
    assert locate_files(model_set, "encoder").identity.weight_hash != first.weight_hash


def test_swapped_roles_are_another_model(tmp_path: Path) -> None:
    first = locate_files(own_set(tmp_path / "a"), "encoder").identity
    model_set = own_set(tmp_path / "b")
    (tmp_path / "b" / "text.bin").write_bytes(CONTENTS["visual"])
    (tmp_path / "b" / "visual.bin").write_bytes(CONTENTS["text"])
    assert locate_files(model_set, "encoder").identity != first


def test_missing_files_are_all_named(tmp_path: Path) -> None:
    model_set = own_set(tmp_path / "a")
    for role in ("text", "visual"):
        (tmp_path / "a" / f"{role}.bin").unlink()
    with pytest.raises(WeightsMissing) as caught:
        locate_files(model_set, "encoder")
    assert caught.value.model_set == str(tmp_path / "a" / "mine.toml")
    assert caught.value.files == (tmp_path / "a" / "text.bin", tmp_path / "a" / "visual.bin")
    with pytest.raises(WeightsMissing):
        locate_files(model_set, "proposer")
    with pytest.raises(PartMissing):
        locate_files(model_set, "judge")


def test_a_file_copied_to_its_path_is_found(home: Path, tmp_path: Path) -> None:
    model_set = own_set(tmp_path / "a")
    path = put_file(model_set, b"weights")
    assert path.is_relative_to(home)
    assert path.name == "sam2.pt"
    assert locate_files(model_set, "proposer").files == {"checkpoint": path}


def test_equal_names_at_different_addresses_do_not_collide() -> None:
    places = {
        url_path(UrlSource(url, (), "model.pt"))
        for url in (
            "https://a/x/model.pt",
            "https://a/y/model.pt",
            "https://b/x/model.pt",
            "https://a/x/model.pt?v=2",
        )
    }
    assert len(places) == 4


def test_hash_is_computed_once_while_size_and_time_stay(tmp_path: Path) -> None:
    model_set = own_set(tmp_path / "a")
    path = put_file(model_set, b"weights")
    first = locate_files(model_set, "proposer").identity
    before = path.stat()
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert locate_files(model_set, "proposer").identity == first, (
        "hashed again although size and time are unchanged"
    )
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(WeightsChanged):
        locate_files(model_set, "proposer")


def test_touched_file_is_the_same_model(tmp_path: Path) -> None:
    model_set = own_set(tmp_path / "a")
    path = put_file(model_set, b"weights")
    first = locate_files(model_set, "proposer").identity
    os.utime(path, (1, 1))
    assert locate_files(model_set, "proposer").identity == first


def test_hash_seen_first_is_expected_from_then_on(tmp_path: Path) -> None:
    model_set = own_set(tmp_path / "a")
    path = put_file(model_set, b"weights")
    locate_files(model_set, "proposer")
    put_file(model_set, b"swapped")
    for _ in range(2):
        with pytest.raises(WeightsChanged) as caught:
            locate_files(model_set, "proposer")
        assert (caught.value.path, caught.value.expected) == (path, sha(b"weights"))
        assert caught.value.found == sha(b"swapped")
    forget_hash(checkpoint(model_set))
    locate_files(model_set, "proposer")


def test_declared_hash_takes_precedence_over_the_record(tmp_path: Path) -> None:
    put_file(own_set(tmp_path / "a"), b"weights")
    locate_files(own_set(tmp_path / "a"), "proposer")
    right, wrong = (f'sha256 = "{sha(content)}"' for content in (b"weights", b"other"))
    locate_files(own_set(tmp_path / "a", right), "proposer")
    with pytest.raises(WeightsChanged):
        locate_files(own_set(tmp_path / "a", wrong), "proposer")


def test_another_size_than_declared_is_refused(tmp_path: Path) -> None:
    model_set = own_set(tmp_path / "a")
    put_file(model_set, b"half")
    with pytest.raises(CheckpointInvalid, match="has 4 bytes, not the 7 of the model set"):
        locate_files(model_set, "proposer")


def test_models_folder_can_be_carried_elsewhere(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_set = own_set(tmp_path / "a")
    put_file(model_set, b"weights")
    first = locate_files(model_set, "proposer").identity
    shutil.copytree(home, tmp_path / "disk")
    shutil.rmtree(home)
    monkeypatch.setenv("MATIR_MODELS", str(tmp_path / "disk"))
    config = locate_files(model_set, "proposer")
    assert config.identity == first
    assert config.files["checkpoint"].is_relative_to(tmp_path / "disk")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"source": 1}', b"\xff"])
def test_damaged_record_is_ignored(home: Path, tmp_path: Path, content: bytes) -> None:
    model_set = own_set(tmp_path / "a")
    put_file(model_set, b"weights")
    first = locate_files(model_set, "proposer").identity
    for record in home.glob(".record/*.json"):
        record.write_bytes(content)
    assert locate_files(model_set, "proposer").identity == first


def test_record_that_cannot_be_written_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MATIR_MODELS", str(tmp_path / "file"))
    config = locate_files(own_set(tmp_path / "a"), "encoder")
    assert config.files["text"].read_bytes() == CONTENTS["text"]


def test_verifying_hashes_every_file_and_reports_each(tmp_path: Path) -> None:
    model_set = own_set(tmp_path / "a")
    path = put_file(model_set, b"weights")
    (tmp_path / "a" / "text.bin").unlink()
    states = {check.file.label: check.state for check in verify_model_set(model_set, no_progress)}
    assert states == {
        "proposer.checkpoint": FileState.OK,
        "encoder.text": FileState.MISSING,
        "encoder.visual": FileState.OK,
        "encoder.vocabulary": FileState.OK,
    }
    before = path.stat()
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = next(iter(verify_model_set(model_set, no_progress)))
    assert (changed.state, changed.path) == (FileState.CHANGED, path)
    assert isinstance(changed.fault, WeightsChanged)


def test_finding_models_loads_no_library_for_fetching(tmp_path: Path) -> None:
    model_set = own_set(tmp_path / "a")
    put_file(model_set, b"weights")
    code = f"""
import sys
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.weights import locate_files
model_set = load_model_set({model_set.handle!r})
locate_files(model_set, "encoder"), locate_files(model_set, "proposer"), load_model_set("full")
heavy = {{"huggingface_hub", "httpx", "httpx2", "requests", "urllib.request", "torch", "tqdm"}}
print(sorted(heavy & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
