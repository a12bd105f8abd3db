"""The real process, with the tiny model set, from photos to masks."""

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from matir_cli.cli.commands.demo import draw
from matir_cli.cli.group import SUMMARIES
from matir_cli.gallery.database import GalleryFile
from tests.support.process import BEGUN, MATIR, PHOTOS, Indexed, matir, open_terminal


def find(indexed: Indexed, *words: object) -> subprocess.CompletedProcess[bytes]:
    return matir("find", "--no-rerank", "--db", indexed.gallery, *words)


def test_add_says_what_it_did(indexed: Indexed) -> None:
    talk = indexed.added.stderr.decode()
    assert indexed.added.returncode == 3, talk
    assert indexed.added.stdout == b""
    assert f"{PHOTOS} added, 0 recognised, 0 unchanged, 2 skipped" in talk
    assert f"skipped {indexed.photos}/zero.jpg: zero bytes" in talk
    assert "a\\x1b[31mred\\nname.jpg: not an image" in talk
    assert "\x1b" not in talk
    assert "drawn world" in talk  # the note of the tiny set
    beside = {path.name for path in indexed.gallery.parent.iterdir()}  # other tests may leave a folder there
    assert {"photos", "gallery.db"} <= beside
    assert not [name for name in beside if name.startswith((".", "gallery.db-"))]


def test_the_gallery_holds_regions_masks_and_vectors(indexed: Indexed) -> None:
    with GalleryFile.open(indexed.gallery) as gallery:
        assert gallery.count_photos() == PHOTOS
        assert gallery.model_set() == "tiny"
        regions = [gallery.regions(photo_id) for photo_id in range(1, PHOTOS + 1)]
        assert min(len(found) for found in regions) >= 2
        assert gallery.connection.pragma("integrity_check") == "ok"


def test_a_second_run_reads_nothing_and_needs_no_torch(indexed: Indexed) -> None:
    script = (
        "import sys; from matir_cli.cli.group import matir; "
        f"matir.main(['add', {str(indexed.photos / '0000.png')!r}, '--db', {str(indexed.gallery)!r}], "
        "standalone_mode=False); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"0 added, 0 recognised, 1 unchanged, 0 skipped" in done.stderr


def test_json_lines(indexed: Indexed) -> None:
    done = find(indexed, "red house", "--jsonl", "--rle", "-n", 5)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["rank"] for record in records] == [1, 2, 3, 4, 5]
    scores = [record["score"] for record in records]
    assert scores == sorted(scores, reverse=True)
    for record in records:
        with Image.open(record["path"]) as photo:
            assert photo.size == (record["width"], record["height"])
        x0, y0, x1, y1 = record["box"]
        assert 0 <= x0 < x1 <= record["width"]
        assert 0 <= y0 < y1 <= record["height"]
        mask = coco.decode(record["mask"])
        assert mask.shape == (record["height"], record["width"])
        rows, columns = np.nonzero(mask)
        tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.array(tight) - record["box"]).max() <= 2


def test_json_is_one_array_and_the_same_answer(indexed: Indexed) -> None:
    lines = find(indexed, "red house", "--jsonl").stdout.splitlines()
    assert json.loads(find(indexed, "red house", "--json").stdout) == [json.loads(line) for line in lines]


def test_paths_for_pipelines(indexed: Indexed) -> None:
    by_line = find(indexed, "tree", "--paths", "-n", 3).stdout.decode().splitlines()
    by_null = find(indexed, "tree", "-0", "-n", 3).stdout.decode().split("\0")
    assert [*by_line, ""] == by_null
    assert all(Path(path).exists() for path in by_line)


def test_masks_are_png_files_at_the_true_size(indexed: Indexed, tmp_path: Path) -> None:
    done = find(indexed, "dog", "--masks", tmp_path / "out", "--jsonl", "-n", 4)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    written = sorted((tmp_path / "out").iterdir())
    assert sorted(record["mask_file"] for record in records) == [str(file) for file in written]
    assert len(written) == 4
    for record in records:
        with Image.open(record["mask_file"]) as mask:
            assert (mask.mode, mask.size) == ("L", (record["width"], record["height"]))
            assert set(np.unique(np.asarray(mask))) <= {0, 255}
            x0, y0, x1, y1 = record["box"]
            assert np.asarray(mask)[int(y0) : int(y1), int(x0) : int(x1)].max() == 255


def test_a_query_that_is_too_long_is_cut_with_a_notice(indexed: Indexed) -> None:
    done = find(indexed, "dog " * 200, "-n", 1)
    assert done.returncode == 0
    assert b"the query is longer than the encoder reads" in done.stderr


def test_the_shell_completes_commands() -> None:
    done = matir(_MATIR_COMPLETE="bash_complete", COMP_WORDS="matir fi", COMP_CWORD="1")
    assert done.stdout == b"plain,find\n"


def test_the_shell_completes_the_options_beside_the_commands() -> None:
    done = matir(_MATIR_COMPLETE="zsh_complete", COMP_WORDS="matir --v", COMP_CWORD="1")
    assert done.stdout.splitlines()[:2] == [b"plain", b"--version"]
    done = matir(_MATIR_COMPLETE="zsh_complete", COMP_WORDS="matir exp", COMP_CWORD="1")
    assert done.stdout.decode().splitlines() == ["plain", "export", SUMMARIES["export"]]


@pytest.mark.parametrize(
    ("name", "meant"), [("search", "find"), ("delete", "rm"), ("exprot", "export"), ("pull", "models pull")]
)
def test_an_unknown_command_is_told_what_may_be_meant(name: str, meant: str) -> None:
    done = matir(name)
    assert done.returncode == 2
    assert f"No such command {name!r}. Did you mean {meant}?" in done.stderr.decode()


def test_the_table_is_for_people(indexed: Indexed) -> None:
    lines = find(indexed, "dog", "-n", 2).stdout.decode().splitlines()
    assert lines[0].split() == ["rank", "score", "box", "x0,y0,x1,y1", "path"]
    assert len(lines) == 3
    assert lines[1].split()[0] == "1"


def without_judge(folder: Path) -> Path:
    """Write a model set with the tiny set's proposer and encoder, but no judge."""
    shipped = Path(str(files("matir_cli.models")))
    shutil.copytree(shipped / "tiny", folder / "tiny", ignore=shutil.ignore_patterns("*.py", "*.gguf"))
    path = folder / "judgeless.toml"
    path.write_text((shipped / "tiny.toml").read_text().partition("[judge]")[0])
    return path


def test_exit_codes_and_one_clear_line(indexed: Indexed, tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    with GalleryFile.open(empty, create=True):
        pass
    (tmp_path / "text.db").write_bytes(b"hello " * 100)
    cases = {
        (1, "nothing found"): find(indexed, "dog", "--min-score", 1.5),
        (2, "the query is empty"): find(indexed, "  "),
        (2, "there is no gallery at"): matir("find", "--no-rerank", "dog", "--db", tmp_path / "no.db"),
        (2, "holds no photo yet"): matir("find", "--no-rerank", "dog", "--db", empty),
        (2, "is not a gallery; it was left unchanged"): matir(
            "find", "--no-rerank", "dog", "--db", tmp_path / "text.db"
        ),
        (2, "has no judge. Choose another model set with --models, or search with stage 1 alone"): matir(
            "find", "dog", "--db", indexed.gallery, "--models", without_judge(tmp_path)
        ),
        (2, "there is no model set nonsense"): find(indexed, "dog", "--models", "nonsense"),
        (2, "their results cannot be compared"): find(indexed, "dog", "--models", "lite"),  # nor present
    }
    for (code, text), done in cases.items():
        talk = done.stderr.decode()
        assert done.returncode == code, (text, talk)
        assert done.stdout == b""
        assert text in talk
        assert "Traceback" not in talk
    assert not (tmp_path / "no.db").exists()


def test_without_weights_no_gallery_is_made(indexed: Indexed, tmp_path: Path) -> None:
    done = matir("add", indexed.photos, "--db", tmp_path / "new.db", "--models", "lite")
    assert done.returncode == 2
    assert b"matir models pull lite" in done.stderr
    assert [*tmp_path.iterdir()] == []


def test_a_gallery_made_with_other_models_is_refused(indexed: Indexed, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(indexed.gallery.read_bytes())
    with GalleryFile.open(other) as gallery:
        gallery.connection.execute("update models set weight_hash = 'other'")
    done = matir("find", "--no-rerank", "dog", "--db", other)
    assert done.returncode == 2
    assert b"was made with the encoder" in done.stderr


def test_paths_on_standard_input(indexed: Indexed, tmp_path: Path) -> None:
    names = [b"plain.png", b"new\nline.png", b"\xff not utf-8.png"]
    for number, name in enumerate(names):
        Path(tmp_path, os.fsdecode(name)).write_bytes((indexed.photos / f"000{number}.png").read_bytes())
    listed = [bytes(tmp_path) + b"/" + name for name in names]
    database = tmp_path / "gallery.db"
    shutil.copy(indexed.gallery, database)
    # The photos are known by their bytes: linked, not encoded again, so no model is loaded.
    by_null = matir("add", "-", "--db", database, given=b"\0".join(listed) + b"\0")
    assert (by_null.returncode, b"0 added, 3 recognised" in by_null.stderr) == (0, True), by_null.stderr
    by_line = matir("add", "-", "--db", database, given=listed[0] + b"\n" + listed[2])
    assert (by_line.returncode, b"2 unchanged" in by_line.stderr) == (0, True), by_line.stderr
    found = matir("find", "--no-rerank", "dog", "-n", PHOTOS, "-0", "--db", database).stdout
    assert len(found.split(b"\0")) == PHOTOS + 1
    with GalleryFile.open(database) as gallery:
        assert Path(os.fsdecode(listed[1])) in gallery.paths(2)


def test_dry_run_prints_and_changes_nothing(indexed: Indexed, tmp_path: Path) -> None:
    new = tmp_path / "new.png"
    new.write_bytes((indexed.photos / "0001.png").read_bytes())
    before = indexed.gallery.read_bytes()
    done = matir("add", new, indexed.photos / "0000.png", "--dry-run", "--db", indexed.gallery)
    assert (done.returncode, done.stdout) == (0, bytes(new) + b"\n")
    assert indexed.gallery.read_bytes() == before
    nowhere = tmp_path / "nowhere.db"
    assert matir("add", new, "--dry-run", "--db", nowhere).stdout == bytes(new) + b"\n"
    assert not nowhere.exists()


def test_the_gallery_can_be_named_by_the_environment(indexed: Indexed) -> None:
    done = matir("find", "--no-rerank", "dog", "--paths", "-n", 1, MATIR_DB=str(indexed.gallery))
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1


def test_a_reader_that_stops_reading_is_no_error(indexed: Indexed) -> None:
    command = shlex.join(
        [*MATIR, "find", "--no-rerank", "dog", "--jsonl", "--rle", "--db", str(indexed.gallery)]
    )
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"], capture_output=True, check=False
    )
    assert done.returncode == 0
    notes = ("matir: model set tiny", "are the whole photo")
    assert all(any(note in line for note in notes) for line in done.stderr.decode().splitlines())


def interrupted(gallery: Path, photos: Path, sign: signal.Signals) -> tuple[int, str]:
    """Send `sign` to an `add` on a terminal after its first photo; return its exit code and output."""
    shown, terminal = open_terminal()
    process = subprocess.Popen(
        [*MATIR, "add", str(photos), "--db", str(gallery), "--models", "tiny"],
        stderr=terminal,
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    os.close(terminal)
    said = b""
    sent = False
    while True:
        try:
            chunk = os.read(shown, 4096)
        except OSError:  # the terminal is closed: the process has ended
            break
        if not chunk:
            break
        said += chunk
        if not sent and BEGUN.search(said):
            process.send_signal(sign)
            sent = True
    os.close(shown)
    return process.wait(), said.decode()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_a_sound_file_and_goes_on(tmp_path: Path, sign: signal.Signals) -> None:
    photos, gallery = tmp_path / "photos", tmp_path / "gallery.db"
    draw(photos, 40)
    code, said = interrupted(gallery, photos, sign)
    assert code == (130 if sign == signal.SIGINT else -9), said
    assert "photo/s" in said
    if sign == signal.SIGINT:
        assert "run the same command again to go on" in said
        assert "Traceback" not in said
        assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery.db", "photos"]
    with GalleryFile.open(gallery) as opened:
        done = opened.count_photos()
        assert 1 <= done < 40
        assert opened.connection.pragma("integrity_check") == "ok"
        whole = opened.connection.execute(
            "select count(*) from photos where id not in (select photo_id from regions)"
        ).fetchone()
        assert whole == (0,)
    again = matir("add", *sorted(photos.iterdir())[: done + 1], "--db", gallery)
    assert again.returncode == 0, again.stderr
    assert f"1 added, 0 recognised, {done} unchanged" in again.stderr.decode()


def test_no_room_is_one_clear_line_and_loses_nothing(indexed: Indexed, tmp_path: Path) -> None:
    gallery = tmp_path / "gallery.db"
    gallery.write_bytes(indexed.gallery.read_bytes())
    draw(tmp_path / "more", PHOTOS + 3)
    size = gallery.stat().st_size

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    new = sorted((tmp_path / "more").iterdir())[PHOTOS:]
    done = subprocess.run(
        [*MATIR, "add", *map(str, new), "--db", str(gallery)],
        capture_output=True,
        check=False,
        preexec_fn=limit,
    )
    talk = done.stderr.decode()
    assert done.returncode == 2, talk
    assert "all photos added before are kept" in talk
    assert "Traceback" not in talk
    with GalleryFile.open(gallery) as opened:
        assert opened.count_photos() == PHOTOS
        assert opened.connection.pragma("integrity_check") == "ok"


def test_the_demo_shows_both_stages(tmp_path: Path) -> None:
    done = matir("demo", tmp_path / "demo", "--photos", PHOTOS, "--results", 2)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"rank") == 3
    assert "$ matir find 'house left of a tree' -n 2" in done.stderr.decode()
    assert len(list((tmp_path / "demo").glob("*.html"))) == 3
    assert len(list((tmp_path / "demo" / "masks").glob("*/*.png"))) == 6
    with GalleryFile.open(tmp_path / "demo" / "gallery.db") as gallery:
        judged = [*gallery.connection.execute("select count(*) from verdicts group by question_id")]
    assert len(judged) == 3
    assert all(2 <= count <= PHOTOS for (count,) in judged)
    again = matir("demo", tmp_path / "demo", "--photos", PHOTOS, "--results", 2)
    assert again.stdout == done.stdout
    assert f"{PHOTOS} unchanged" in again.stderr.decode()
