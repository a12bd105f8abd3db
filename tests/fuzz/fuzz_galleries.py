"""Mutated galleries: every command ends in time, with a documented exit code and no internal error."""

from __future__ import annotations

import os
import random
import resource
import signal
import traceback
from collections.abc import Callable
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
import numpy as np
from click.testing import CliRunner

from matir_cli.cli.group import matir
from matir_cli.errors import MatirError, ReencodingBegun
from matir_cli.gallery import schema
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.file_metadata import store_metadata
from matir_cli.gallery.notes import store_notes
from matir_cli.gallery.region_rows import store_origin
from matir_cli.gallery.saved_searches import find_saved_search, remember_results, save_search
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.indexing.reencode import Exchanged, begin_reencoding, reencode_photos
from matir_cli.maintenance.doctor.integrity import examine_gallery
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import INDEXING_PARTS, locate_part
from matir_cli.photos.image_file import CUT, LEFT_OUT
from matir_cli.records import (
    Box,
    FileMetadata,
    FileRecord,
    FloatArray,
    Grounding,
    ModelIdentity,
    OriginKind,
    RegionOrigin,
    Verdict,
)
from matir_cli.search.filters import Filters
from matir_cli.search.index import seal_index, store_vectors
from matir_cli.search.pipeline import SearchOptions
from matir_cli.search.rank import rank_photos
from matir_cli.search.saved_query import SavedExample, SavedQuery
from tests.fuzz.campaign import main_of
from tests.support.crafted_gallery import REGIONS, craft, digest, place, unit
from tests.support.fakes import ColourEncoder
from tests.support.old_gallery import write_old_gallery
from tests.support.planted_schemas import PLANTED

CPU_SECONDS = 30
"""Time that all commands on one mutated gallery may compute together."""

SECONDS = 300
"""Time that they may take, waiting included, on a machine that does other work."""

DIMENSIONS = 96
"""Of the tiny set's vectors."""

JUDGE = "a" * 64

NEXT = ModelIdentity("next", "b" * 64)
"""The encoder for which vectors are half made."""

QUERIES = ("a dog", "a cat")

Mutation = Callable[[random.Random, Path], None]


def trial(rng: random.Random, folder: Path) -> str | None:
    """Mutate a sound gallery in one or several ways, and run every command on a copy of it."""
    path = folder / "gallery.db"
    path.write_bytes(sound_gallery())
    if version := rng.choice((0, 0, *range(1, schema.VERSION))):  # else the version of today
        write_old_gallery(folder / "old.db", version, path)
        (folder / "old.db").replace(path)
    (folder / "sound.db").write_bytes(sound_gallery())
    (folder / "photos").mkdir()
    chosen = [rng.choice(MUTATIONS) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    for mutate in chosen:
        mutate(rng, path)
    finding = _in_time(path)
    return f"{', '.join(mutate.__name__ for mutate in chosen)}: {finding}" if finding else None


@cache
def sound_gallery() -> bytes:
    """Return a gallery for the tiny set: its bytes, with blocks, loose photos, answers and skipped files."""
    names = [f"{number}.jpg" for number in range(30)]
    with TemporaryDirectory() as folder, craft(Path(folder) / "gallery.db", names) as gallery:
        tiny = load_model_set("tiny")
        gallery.connection.execute(
            "delete from models; delete from vectors; delete from residuals; delete from loose"
        )
        for role in INDEXING_PARTS:
            gallery.bind_model(role, locate_part(tiny, role).identity, "tiny")
        for number, name in enumerate(names):
            regions = [stored.id for stored in gallery.regions(number + 1)]
            store_vectors(gallery, number + 1, regions, _vectors(name))
            if number == 19:
                seal_index(gallery, 32)
        for query in QUERIES:
            for photo_id in (1, 5, 25):
                cached = VerdictCache(gallery, JUDGE, query)
                cached.remember(photo_id, Verdict(1.0, -2.0))
                cached.remember_grounding(photo_id, Grounding((Box(1, 2, 30, 40),), "a box", readable=True))
        gallery.remember_skipped(FileRecord(Path("/photos/zero.jpg"), 0, 1), "zero bytes")
        for region, kind, label in ((6, OriginKind.HUMAN, "a dog"), (7, OriginKind.DATA_SET, None)):
            store_origin(gallery.connection, region, RegionOrigin(kind, label))
        sidecar = FileRecord(Path("/photos/2.jpg.xmp"), 300, 7)
        for number, name in enumerate(names[:20]):
            described = FileMetadata(number % 7 - 1, ("a dog", f"Places|{number}"), 48.5, -3.0)
            store_metadata(gallery.connection, place(name), described, sidecar if number == 2 else None)
        store_notes(gallery.connection, 3, [CUT])
        store_notes(gallery.connection, 7, [CUT, LEFT_OUT])
        example = SavedExample(digest("5.jpg").hex(), Box(1, 2, 30, 40))
        filters = Filters((Path("/photos"),), "2024", camera="acme")
        stage_1 = SearchOptions(limit=5, rerank=False, unique=True, filters=filters)
        save_search(gallery, "balls", SavedQuery("a ball", (), 0.5, ("a cat",), stage_1).to_json())
        odd = SavedQuery(None, (example,), 0.5, (), SearchOptions(limit=2), (SavedExample(example.photo),))
        save_search(gallery, "odd", odd.to_json())
        remember_results(gallery, find_saved_search(gallery, "balls"), [1, 7])
        begun = begin_reencoding(gallery, NEXT, "next", restart=False)
        assert begun is not None
        with closing(reencode_photos(gallery, ColourEncoder(), begun)) as outcomes:
            next(outcomes)  # one transaction: half of the photos
        return gallery.path.read_bytes()


def _vectors(name: str) -> FloatArray:
    rng = np.random.default_rng(int.from_bytes(digest(name)[:4], "big"))
    return unit(2.0 + rng.standard_normal((REGIONS, DIMENSIONS)))


# Mutations


def flip_bytes(rng: random.Random, path: Path) -> None:
    """Change some bytes anywhere, or in one page."""
    raw = bytearray(path.read_bytes())
    page = rng.randrange(max(1, len(raw) // 8192)) * 8192
    low, high = rng.choice(((0, len(raw)), (0, 100), (page, page + 64), (page, page + 8192)))
    for _ in range(rng.choice((1, 3, 20, 300))):
        at = rng.randrange(low, max(low + 1, min(high, len(raw))))
        if at < len(raw):
            raw[at] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
    path.write_bytes(raw)


def cut(rng: random.Random, path: Path) -> None:
    """Cut the file short, or add zeros."""
    size = path.stat().st_size
    os.truncate(path, rng.choice((rng.randrange(size + 1), size // 8192 // 2 * 8192, 100, 512, size + 9000)))


def repeat_page(rng: random.Random, path: Path) -> None:
    """Put one page in the place of another."""
    raw = bytearray(path.read_bytes())
    count = len(raw) // 8192
    if count > 1:
        source, target = rng.randrange(count), rng.randrange(count)
        raw[target * 8192 : (target + 1) * 8192] = raw[source * 8192 : (source + 1) * 8192]
    path.write_bytes(raw)


def repeat_children(rng: random.Random, path: Path) -> None:
    """Let all cells of an inner page point to the same child, so that a scan meets rows again and again."""
    raw = bytearray(path.read_bytes())
    inner = [at for at in range(8192, len(raw) - 8191, 8192) if raw[at] in (2, 5)]
    if inner:
        at = rng.choice(inner)
        child = rng.choice((raw[at + 8 : at + 12], (at // 8192 + 1).to_bytes(4, "big")))
        for cell in range(min(int.from_bytes(raw[at + 3 : at + 5], "big"), 4000)):
            pointer = at + int.from_bytes(raw[at + 12 + 2 * cell : at + 14 + 2 * cell], "big")
            if pointer + 4 <= len(raw):
                raw[pointer : pointer + 4] = child
    path.write_bytes(raw)


def leave_journal(rng: random.Random, path: Path) -> None:
    """Put a journal beside the file: of zeros, or one that looks hot."""
    magic = bytes.fromhex("d9d505f920a163d7")
    start = rng.choice((b"", magic, magic + b"\xff" * 4))
    Path(f"{path}-journal").write_bytes(start + rng.randbytes(rng.choice((0, 20, 600, 9000))))


def plant(rng: random.Random, path: Path) -> None:
    """Change the schema."""
    _execute(path, rng.choice(PLANTED))


def change_schema_row(rng: random.Random, path: Path) -> None:
    """Write into SQLite's own table of tables."""
    value = rng.choice(("rootpage + 1", "2", "0", "-5", "99999999", "'x'", "null"))
    column = rng.choice(("rootpage", "rootpage", "sql", "name", "type", "tbl_name"))
    which = rng.choice(("photos", "regions", "files", "vectors", "files_by_photo", "codes"))
    change = f"update sqlite_schema set {column} = {value} where name = '{which}'"
    _execute(path, f"pragma writable_schema = on; {change}")


def change_values(rng: random.Random, path: Path) -> None:
    """Give some values another type, range or size."""
    (table, column), value = rng.choice(COLUMNS), rng.choice(VALUES)
    has_rowid = table not in (
        *("files", "skipped", "models", "verdicts", "groundings", "notes", "file_metadata", "file_keywords"),
        "next_models",
    )
    first = f"rowid = (select min(rowid) from {table})" if has_rowid else "random() % 10 = 0"
    some = "rowid % 3 = 0" if has_rowid else "random() % 3 = 0"
    where = first if "3000000" in value else rng.choice(("true", some, first))
    _execute(path, f"update or ignore {table} set {column} = {value} where {where}")


def delete_rows(rng: random.Random, path: Path) -> None:
    """Delete rows without those that refer to them."""
    table = rng.choice(COLUMNS)[0]
    _execute(path, f"delete from {table} where random() % {rng.choice((1, 2, 10))} = 0")


def add_rows(rng: random.Random, path: Path) -> None:
    """Add rows that refer to nothing."""
    _execute(
        path,
        rng.choice(
            (
                "insert into files values ('/photos/more.jpg', 999, 1, 1)",
                "insert into files values (cast('/a' || char(0) || 'b' as text), 1, 1, 1)",
                "insert into loose values (999)",
                "insert into region_origins values (999, 'human', 'x'), (3, 'elsewhere', null)",
                "insert into file_metadata values ('/photos/none.jpg', 9, 91, 0, x'00', -1, 'x')",
                "insert into file_keywords values ('/photos/1.jpg', char(27))",
                "insert into vectors values (999, 999, x'01')",
                "insert into verdicts values (1, 999, 0, 0), (999, 1, 0, 0)",
                "insert into groundings values (1, 3, 'null', 'x', 7)",
                "insert into codes (runs, centre, codes) values (zeroblob(24), zeroblob(384), zeroblob(24))",
                "insert into models values ('judge', 'x', 'y', '/etc/passwd')",
                "update models set model_set = '../../x.toml'",
            )
        ),
    )


COLUMNS = [
    *(("photos", name) for name in ("sha256", "width", "height", "mask_width", "mask_height", "orientation")),
    *(("photos", name) for name in ("id", "taken_at", "camera", "latitude", "longitude", "added_at")),
    *(("files", name) for name in ("path", "photo_id", "bytes", "mtime_ns")),
    *(("skipped", name) for name in ("path", "reason", "bytes", "mtime_ns", "seen_at")),
    *(("regions", name) for name in ("id", "photo_id", "ordinal", "x0", "y0", "x1", "y1", "area", "rle")),
    *(("regions", name) for name in ("predicted_iou", "stability")),
    *(("previews", name) for name in ("photo_id", "jpeg")),
    *(("region_origins", name) for name in ("region_id", "origin", "label")),
    *(("vectors", name) for name in ("region_id", "photo_id", "vector")),
    *(("residuals", name) for name in ("photo_id", "residuals")),
    *(("codes", name) for name in ("id", "runs", "centre", "codes")),
    *(("questions", name) for name in ("id", "judge", "query")),
    *(("verdicts", name) for name in ("question_id", "photo_id", "z_true", "z_false")),
    *(("groundings", name) for name in ("boxes", "answer", "readable", "photo_id")),
    *(("models", name) for name in ("role", "name", "weight_hash", "model_set")),
    *(("notes", name) for name in ("photo_id", "kind", "note")),
    *(("file_metadata", name) for name in ("path", "rating", "latitude", "longitude")),
    *(("file_metadata", name) for name in ("sidecar_path", "sidecar_bytes", "sidecar_mtime_ns")),
    *(("file_keywords", name) for name in ("path", "keyword")),
    ("loose", "photo_id"),
    *(("next_models", name) for name in ("role", "name", "weight_hash", "model_set")),
    *(("next_vectors", name) for name in ("photo_id", "newest_region", "vectors", "residuals")),
]

VALUES = [
    *("0", "1", "-1", "7", "1e9", "9e999", "-9e999", "0.5", "9223372036854775807", "-9223372036854775808"),
    *("''", "'x'", "'/x'", "x''", "x'00'", "x'ff'", "x'2f00'", "'/a' || char(0)", "cast(x'2fff' as text)"),
    *("hex(zeroblob(60000))", "zeroblob(96)", "zeroblob(3000000)", "zeroblob(64)", "randomblob(96)"),
    *("randomblob(3000000)", "randomblob(384)", "'[[0,0,1e9,1e9]]'", "'[[1e999,0,1,1]]'", "'[[5,5,1,1]]'"),
    *("'{\"a\":1}'", "'[' || replace(hex(zeroblob(30000)), '00', '[') ", "x'ffd8ffe0'", "'2024-13-99'"),
    *("char(27) || '[31m'", "x'7f7fffff' || x'7f7fffff'", "'0' || char(10)", "'../../mine.toml'"),
]

MUTATIONS: list[Mutation] = [
    *(flip_bytes, flip_bytes, cut, repeat_page, repeat_children, leave_journal, plant, change_schema_row),
    *(change_values, change_values, change_values, change_values, change_values, delete_rows, add_rows),
]


def _execute(path: Path, statements: str) -> None:
    """Run SQL on the file as another program would; a file too damaged for that stays as it is."""
    db = apsw.Connection(str(path))
    try:
        db.execute(statements)
    except (apsw.Error, UnicodeDecodeError):
        pass
    finally:
        db.close()


# Commands


def _in_time(path: Path) -> str | None:
    """Run the commands in a process of its own, which a signal ends when its time is up."""
    report = path.with_name("report")
    report.touch()
    process = os.fork()
    if process == 0:
        code = 2
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
            code = 1 if _run_commands(path, report) else 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status == 0:
        return None
    at = report.read_text(errors="replace")
    late = status in (-signal.SIGALRM, -signal.SIGXCPU, -signal.SIGKILL)
    return f"did not end in time: {at}" if late else f"status {status}: {at}"


def _run_commands(path: Path, report: Path) -> bool:
    """Run every command on a copy of the file; return True after a finding, which is left in `report`."""
    original, journal = path.read_bytes(), Path(f"{path}-journal")
    left = journal.read_bytes() if journal.exists() else None
    for name, run in _commands(path).items():
        report.write_text(name)
        path.write_bytes(original)
        journal.unlink(missing_ok=True)
        if left is not None:
            journal.write_bytes(left)
        try:
            run()
        except MatirError as error:
            if "\n" not in str(error):
                continue
            report.write_text(f"{name}: more than one line: {error}")
            return True
        except Exception:
            report.write_text(f"{name}: {traceback.format_exc()}")
            return True
    return False


def _commands(path: Path) -> dict[str, Callable[[], object]]:
    folder = path.parent
    db = ("--db", str(path))
    words: list[tuple[str, ...]] = [
        ("info", "--json", *db),
        ("ls", "--json", *db),
        ("ls", "--skipped", *db),
        ("ls", "--missing", "--in", "/photos", *db),
        ("ls", "--incomplete", *db),
        ("show", "3", "--json", "--overlay", str(folder / "overlay.png"), "--force", *db),
        ("show", str(place("7.jpg")), *db),
        ("find", "a red ball", "--no-rerank", "--json", "--overlays", str(folder / "drawn"), *db),
        ("find", "a ball", "--no-rerank", "--min-size", "0.01", "--in", "/photos", "--camera", "acme", *db),
        ("find", "a ball", "--no-rerank", "--unique", "--jsonl", *db),
        ("duplicates", "--bursts", "--json", "--in", "/photos", *db),
        ("find", "a ball", "--no-rerank", "--since", "2024", "-n", "100", "-0", *db),
        ("find", "a ball", "--no-rerank", "--rating", "1+", "--no-keyword", "places", "--sort", "size", *db),
        ("find", "a ball", "--no-rerank", "--near", "48,-3", "--within", "900km", "--keyword", "*", *db),
        ("ls", "--long", *db),
        ("saved", "list", "--json", *db),
        ("saved", "run", "balls", "--new", "--json", *db),
        ("saved", "run", "odd", "--paths", *db),
        ("export", "--coco", str(folder / "coco.json"), "--force", *db),
        ("export", "--vectors", str(folder / "vectors.npy"), "--force", *db),
        ("merge", str(path), "--db", str(folder / "merged.db")),
        ("merge", str(folder / "sound.db"), *db),
        (
            "find",
            "a red ball",
            "--no-rerank",
            "--json",
            "--keyword",
            "*",
            *db,
            "--db",
            str(folder / "sound.db"),
        ),
        ("ls", "--long", "--db", str(folder / "sound.db"), *db, "--skip-missing"),
        ("info", "--db", str(folder / "sound.db"), *db),
        ("split", str(folder / "parts"), "--into", "2", "--by", "folder", "--force", *db),
        ("rm", "5", str(place("8.jpg")), "--in", "/photos/9.jpg", *db),
        ("sync", str(folder / "photos"), "--dry-run", *db),
        ("compact", "--drop-previews", *db),
        ("compact", "--forget-verdicts", *db),
        ("reencode", "--models", "tiny", "--restart", *db),
    ]
    commands: dict[str, Callable[[], object]] = {" ".join(each): partial(_invoke, each) for each in words}
    commands["doctor"] = lambda: list(examine_gallery(path, deep=True))
    commands["reencode"] = lambda: _reencode(path)
    commands["cached answers"] = lambda: _read_answers(path)
    return commands


def _reencode(path: Path) -> None:
    """Go on with half-made vectors, or begin anew, and look at the outcome."""
    with GalleryFile.open(path) as gallery:
        try:
            begun = begin_reencoding(gallery, NEXT, "next", restart=False)
        except ReencodingBegun:
            begun = begin_reencoding(gallery, NEXT, "next", restart=True)
        if begun is not None:
            outcomes = list(reencode_photos(gallery, ColourEncoder(), begun, drop_missing=True))
            assert isinstance(outcomes[-1], Exchanged)
            rank_photos(gallery, np.ones(ColourEncoder.dimensions, np.float32), 3)


def _invoke(words: tuple[str, ...]) -> None:
    """Run a command; raise what it lets through, and AssertionError for an undocumented exit code."""
    result = CliRunner().invoke(matir, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 1, 2, 3), f"exit code {result.exit_code}"


def _read_answers(path: Path) -> None:
    with GalleryFile.open(path) as gallery:
        for query in QUERIES:
            cached = VerdictCache(gallery, JUDGE, query)
            for photo_id in range(30):
                cached.verdict(photo_id)
                cached.grounding(photo_id)
            cached.remember(7, Verdict(0.0, 0.0))


if __name__ == "__main__":
    main_of("galleries", trial, count=1000)
