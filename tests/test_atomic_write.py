import os
import subprocess
import sys
from pathlib import Path

import pytest

from matir_cli import errors
from matir_cli.atomic_write import STREAM, atomic_write, delete_leftovers, open_text


@pytest.fixture(autouse=True)
def nothing_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the folders of earlier tests, whose inodes new folders may have."""
    monkeypatch.setattr("matir_cli.atomic_write._swept", set())


def write(path: Path, text: str, *, force: bool = False) -> None:
    with atomic_write(path, force=force) as temporary:
        temporary.write_text(text)


def test_the_file_appears_when_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "result.json"
    with atomic_write(path, force=False) as temporary:
        temporary.write_text("done")
        assert not path.exists()
        assert (temporary.parent, temporary.suffix) == (path.parent, ".json")
    assert path.read_text() == "done"
    assert [*path.parent.iterdir()] == [path]


def test_a_file_that_exists_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_text("old")
    with pytest.raises(errors.OutputExists) as caught:
        write(path, "new")
    assert caught.value.path == path
    assert path.read_text() == "old"
    write(path, "new", force=True)
    assert path.read_text() == "new"


def test_a_file_that_somebody_else_wrote_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "result"
    with pytest.raises(errors.OutputExists), atomic_write(path, force=False) as temporary:
        temporary.write_text("ours")
        path.write_text("theirs")
    assert [path.read_text(), len([*tmp_path.iterdir()])] == ["theirs", 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, BrokenPipeError])
def test_what_was_begun_is_deleted(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "result"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path, force=True) as temporary:
        temporary.write_text("half")
        raise error
    assert [path.read_text(), len([*tmp_path.iterdir()])] == ["old", 1]


def test_the_longest_name_there_can_be(tmp_path: Path) -> None:
    for name in ("x" * 251 + ".npy", "a." + "y" * 253):
        write(tmp_path / name, "done")
        assert (tmp_path / name).read_text() == "done"


def test_a_link_is_kept_and_its_target_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(errors.OutputExists):
        write(link, "new")
    write(link, "new", force=True)
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_is_written_to_as_it_is() -> None:
    script = "from pathlib import Path; from matir_cli.atomic_write import atomic_write\n"
    script += "with atomic_write(Path('/dev/stdout'), force=False) as path: path.write_text('through')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"through"
    write(Path(os.devnull), "gone")
    assert Path(os.devnull).is_char_device()


def test_what_cannot_be_written_is_an_error_with_the_systems_word(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, reason in ((tmp_path, "it is a folder"), (tmp_path / "file" / "below", "Not a directory")):
        with pytest.raises(errors.OutputError) as caught:
            write(path, "text", force=True)
        assert (caught.value.path, caught.value.reason) == (path, reason)


def test_a_living_process_and_another_host_keep_their_files(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from matir_cli.atomic_write import atomic_write\n"
        "with atomic_write(Path(sys.argv[1]) / 'other.png', force=False) as path:\n"
        "    path.write_text('half'); print(path.name, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        living = process.stdout.readline().decode().strip()
        host, number = living.split("-")[1:3]
        assert int(number) == process.pid
        dead = f".matir-{host}-{os.getpid()}-0123abcd.png"  # its number is now that of a living process
        abroad = living.replace(host, "0" * 8)
        for name in (dead, abroad):
            (tmp_path / name).write_text("half")
        write(tmp_path / "ours.png", "done")
        assert {path.name for path in tmp_path.iterdir()} == {"ours.png", living, abroad}
        process.communicate(b"")
    assert {path.name for path in tmp_path.iterdir()} == {"ours.png", "other.png", abroad}


def test_only_plain_files_left_behind_are_deleted(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a", force=False) as temporary:
        start = temporary.name.rpartition("-")[0]
    folder = tmp_path / "new"
    (folder / f"{start}-00000000").mkdir(parents=True)
    (folder / f"{start}-00000001").symlink_to(tmp_path / "a")
    (folder / f"{start}-00000002").write_text("half")
    (folder / f"{start}-00000002").chmod(0o400)
    delete_leftovers(folder)
    assert sorted(path.name[-1] for path in folder.iterdir()) == ["0", "1"]
    assert (tmp_path / "a").exists()
    (folder / f"{start}-00000003").write_text("half")
    delete_leftovers(folder)  # once per process: a folder may hold many files
    assert (folder / f"{start}-00000003").exists()


def test_standard_output_is_written_to_in_the_encoding_asked_for(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    with open_text(STREAM, force=False, encoding="utf-8") as stream:
        stream.write("\u2013\n")
    sys.stdout.write("after\n")
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == "\u2013\nafter\n".encode()
