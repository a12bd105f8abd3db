"""Queries in the real process: examples, exclusions, filters, many queries at once."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from matir_cli.gallery.database import GalleryFile
from matir_cli.models.tiny import world
from tests.support.process import MATIR, PHOTOS, Indexed, matir, records


@pytest.fixture
def gallery(indexed: Indexed, tmp_path: Path) -> Path:
    """A copy of the indexed gallery: photo 1 taken in May 2023, photo 2 in June 2023, by cameras."""
    copy = Path(shutil.copy(indexed.gallery, tmp_path / "gallery.db"))
    with GalleryFile.open(copy) as opened:
        for photo_id, taken, camera in (
            (1, "2023-05-31T23:59:59", "Google Pixel 8"),
            (2, "2023-06-01T00:00:00", "Canon EOS R6"),
        ):
            opened.connection.execute(
                "update photos set taken_at = ?, camera = ? where id = ?", (taken, camera, photo_id)
            )
    return copy


def find(gallery: Path, *words: object, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return matir("find", *words, "--no-rerank", "--db", gallery, given=given)


def scores(done: subprocess.CompletedProcess[bytes]) -> list[float]:
    assert done.returncode == 0, done.stderr
    return [record["score"] for record in records(done)]


def ids(gallery: Path, done: subprocess.CompletedProcess[bytes]) -> set[int]:
    with GalleryFile.open(gallery) as opened:
        ids = {path: photo_id for photo_id in range(1, PHOTOS + 1) for path in opened.paths(photo_id)}
    return {ids[Path(str(record["path"]))] for record in records(done)}


# By example


def test_a_photo_of_the_gallery_is_an_example_without_any_model(indexed: Indexed) -> None:
    photo = indexed.photos / "0003.png"
    words = ["find", "--image", str(photo), "--jsonl", "-n", "3", "--db", str(indexed.gallery)]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "matir_cli", *words], capture_output=True, check=True
    )
    (first, *others) = records(done)
    assert (first["path"], first["region"]) == (str(photo), 0)
    assert first["score"] == pytest.approx(1, abs=1e-3)
    assert all(0 < record["score"] < 1 for record in others)
    talk = done.stderr.decode()
    assert f"the region 0,0,{first['width']},{first['height']} of {photo}, 100.0% of the photo" in talk
    assert "cannot be put to the judge" in talk
    imported = {line.rsplit("|", 1)[-1].strip() for line in talk.splitlines()}
    assert not {"torch", "llama_cpp", "tokenizers"} & imported


def test_a_point_in_a_photo_of_the_gallery_means_a_stored_region(indexed: Indexed) -> None:
    with GalleryFile.open(indexed.gallery) as gallery:
        regions = gallery.regions(gallery.connection.execute("select min(id) from photos").get)
    box = min(regions[1:], key=lambda region: region.region.area).box
    corners = f"{box.x0},{box.y0},{box.x1},{box.y1}"
    photo = indexed.photos / "0000.png"
    boxed = find(indexed.gallery, "--image", photo, "--box", corners, "--jsonl")
    assert records(boxed)[0]["path"] == str(photo)
    assert records(boxed)[0]["box"] == [box.x0, box.y0, box.x1, box.y1]
    assert b"cannot be put to the judge" not in boxed.stderr  # the judge was not asked for
    middle = f"{(box.x0 + box.x1) / 2},{(box.y0 + box.y1) / 2}"
    pointed = find(indexed.gallery, "--image", photo, "--point", middle, "--jsonl")
    assert scores(pointed)[0] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("prompt", ["--box", "--point"])
def test_any_photo_can_be_an_example(indexed: Indexed, tmp_path: Path, prompt: str) -> None:
    shown = world.picture(world.SPLITS["demo"][PHOTOS + 1])
    thing = max(shown.things, key=lambda thing: shown.mask(thing.id).sum())
    path = tmp_path / "new photo.png"
    Image.fromarray(shown.image).resize((shown.image.shape[1] * 4, shown.image.shape[0] * 4)).save(path)
    box = thing.box.scaled(4, 4)
    corners = {
        "--box": f"{box.x0},{box.y0},{box.x1},{box.y1}",
        "--point": f"{(box.x0 + box.x1) / 2},{(box.y0 + box.y1) / 2}",
    }
    done = find(
        indexed.gallery, thing.kind, "--image", path, prompt, corners[prompt], "--weight", "0.4", "--jsonl"
    )
    assert done.returncode == 0, done.stderr
    assert len(records(done)) == 10
    (taken,) = [line for line in done.stderr.decode().splitlines() if "example:" in line]
    x0, y0, x1, y1 = (float(edge) for edge in taken.split("region ")[1].split(" ")[0].split(","))
    overlap = (min(x1, box.x1) - max(x0, box.x0)) * (min(y1, box.y1) - max(y0, box.y0))
    assert overlap > 0.3 * box.area
    assert "of the photo" in taken


@pytest.mark.parametrize("command", ["find", "tag"])
def test_an_example_that_fits_poorly_is_said(indexed: Indexed, command: str) -> None:
    path = indexed.photos / "0004.png"
    with Image.open(path) as picture:
        width, height = picture.size
    dry = ["--dry-run", "--label", "x"] if command == "tag" else []

    def told(box: str) -> str:
        words = ["--image", path, "--box", box, "-n", "1", *dry]
        done = matir(command, *words, "--no-rerank", "--db", indexed.gallery)
        assert done.returncode == 0, done.stderr
        return done.stderr.decode()

    whole = told(f"0,0,{0.9 * width},{0.9 * height}")
    assert f"the region 0,0,{width},{height} of {path}, 100.0% of the photo" in whole
    assert "poorly" not in whole
    poor = told("10,10,100,100")
    assert "fits --box poorly (IoU 0." in poor
    assert "draw the box tight around the object" in poor


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--point", "5000,1"], "lies outside"),
        (["--box", "5000,1,6000,2"], "lies outside"),
        (["--image", "nowhere.jpg"], "nowhere.jpg cannot be accessed"),
    ],
)
def test_an_example_that_is_none_is_one_clear_line(indexed: Indexed, words: list[str], said: str) -> None:
    image = [] if "--image" in words else ["--image", indexed.photos / "0000.png"]
    done = find(indexed.gallery, *image, *words)
    assert done.returncode == 2
    assert said in done.stderr.decode().splitlines()[-1]
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Describe an object, or show one"),
        (["--box", "1,2,3,4"], "before it, which is missing"),
        (["--image", "a", "--box", "1,2,3,4", "--point", "1,2"], "--box or --point, not both"),
        (["--image", "a", "--box", "3,2,1,4"], "X0 < X1"),
        (["--image", "a", "--box", "1,2,3"], "is not X0,Y0,X1,Y1"),
        (["--image", "a", "--point", "1,nan"], "is not X,Y"),
        (["dog", "--weight", "0.3"], "give both"),
        (["dog", "--since", "2023-13"], "is no date"),
        (["dog", "--until", "2023-02-30"], "is no date"),
        (["dog", "--min-size", "2"], "--min-size"),
        (["dog", "--min-p", "0.5", "--no-rerank"], "--min-p"),
        (["--image", "a", "--min-p", "0.5"], "--min-p"),
        (["-", "--paths"], "lines of JSON"),
        (["dog", "--paths", "--json"], "--paths and --json are two forms of output"),
        (["dog", "-0", "--jsonl"], "--null and --jsonl are two forms of output"),
        (["red", "house"], 'Put a description of several words in quotes: matir find "red house"'),
        (["-", "--html", "page.html"], "results of one query"),
    ],
)
def test_options_that_contradict_each_other_are_refused_at_once(words: list[str], said: str) -> None:
    done = matir("find", *words, "--db", "nowhere.db")
    assert done.returncode == 2
    assert said in done.stderr.decode()


# Exclusions


def test_what_is_not_wanted_comes_later(indexed: Indexed) -> None:
    plain = records(find(indexed.gallery, "house", "--jsonl", "-n", PHOTOS))
    first = plain[0]["path"]
    unlike = find(indexed.gallery, "house", "--not", "red house", "--not", "tree", "--jsonl", "-n", PHOTOS)
    assert [r["path"] for r in records(unlike)] != [r["path"] for r in plain]
    assert {r["path"] for r in records(unlike)} == {r["path"] for r in plain}
    assert first in {r["path"] for r in plain}
    same = find(indexed.gallery, "house", "--not", " House")
    assert same.returncode == 2
    assert "leaves nothing to find" in same.stderr.decode()


def test_the_judge_is_asked_what_must_not_be_there(gallery: Path, model_set: Path) -> None:
    words = ["--db", gallery, "--models", model_set, "--jsonl", "-n", PHOTOS, "--no-ground", "--certainty", 1]
    both = records(matir("find", "red house", "--not", "tree", *words))
    # Both verdicts are remembered, one per text.
    wanted, unwanted = (
        {record["path"]: record["p_true"] for record in records(matir("find", text, *words))}
        for text in ("red house", "tree")
    )
    assert len(both) == PHOTOS
    for record in both:
        expected = wanted[record["path"]] * (1 - unwanted[record["path"]])
        assert record["p_true"] == pytest.approx(expected, abs=2e-6)
    order = [record["p_true"] for record in both]
    assert order == sorted(order, reverse=True)
    with GalleryFile.open(gallery) as opened:
        asked = opened.connection.execute(
            "select query, count(*) from questions join verdicts on question_id = id group by id order by 1"
        ).fetchall()
    assert asked == [("red house", PHOTOS), ("tree", PHOTOS)]
    low = matir("find", "red house", "--not", "tree", *words, "--min-p", "1")
    assert (low.returncode, low.stdout) == (1, b"")
    assert f"nothing found: the judge gives the best photo {order[0]:.3f}" in low.stderr.decode()
    some = matir("find", "red house", "--not", "tree", *words, "--min-p", order[3] - 1e-6)
    assert [record["p_true"] for record in records(some)] == order[:4]


# Filters


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--since", "2023-05-31", "--until", "2023-05-31"], {1}),
        (["--since", "2023", "--until", "2023"], {1, 2}),
        (["--since", "2023-06-01 00:00"], {2}),
        (["--until", "2023-05"], {1}),
        (["--camera", "pixel"], {1}),
        (["--camera", "o"], {1, 2}),
        (["--camera", "o", "--since", "2023-06"], {2}),
        (["--min-size", "0", "--camera", "canon"], {2}),
    ],
)
def test_photos_are_found_in_the_part_asked_for(gallery: Path, words: list[str], expected: set[int]) -> None:
    assert ids(gallery, find(gallery, "red house", "--jsonl", *words)) == expected


def test_places_are_folders_and_files(gallery: Path, indexed: Indexed) -> None:
    photos = indexed.photos
    everywhere = find(gallery, "dog", "--jsonl", "-n", PHOTOS, "--in", photos)
    assert len(records(everywhere)) == PHOTOS
    two = ["--in", photos / "0001.png", "--in", photos / "x" / ".." / "0004.png"]
    assert ids(gallery, find(gallery, "dog", "--jsonl", *two)) == {2, 5}
    nowhere = find(gallery, "dog", "--in", photos / "000")  # not a folder, but a prefix of names
    assert (nowhere.returncode, nowhere.stdout) == (1, b"")
    assert f"nothing found: no photo is in {photos / '000'} (see: matir ls --db " in nowhere.stderr.decode()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--since", "2024"], "no photo was taken in that period (--since, --until)"),
        (["--camera", "nikon"], "no photo is by a camera whose name contains nikon"),
        (["--min-size", "1"], "no object has that size (--min-size, --max-size)"),
        (["--camera", "pixel", "--since", "2023-06"], "no photo passes all of these filters"),
    ],
)
def test_nothing_found_names_the_filter(gallery: Path, words: list[str], said: str) -> None:
    done = find(gallery, "dog", *words)
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"nothing found: {said}" in done.stderr.decode()


def test_photos_without_a_date_are_told(indexed: Indexed) -> None:
    done = find(indexed.gallery, "dog", "--until", "2024")
    assert done.returncode == 1
    assert "nothing found: no photo has a date, so --since and --until match none" in done.stderr.decode()


def test_whole_photos_among_the_results_are_told_once(indexed: Indexed) -> None:
    done = find(indexed.gallery, "dog", "--jsonl", "--limit", 10)
    whole = sum(record["region"] == 0 for record in records(done))
    assert whole > 1
    note = f"{whole} of 10 results are the whole photo; use --max-size 0.95 to match objects only"
    assert done.stderr.decode().count(note) == 1
    objects = find(indexed.gallery, "dog", "--jsonl", "-n", 10, "--max-size", 0.95)
    assert all(record["region"] != 0 for record in records(objects))
    for quiet in (objects, find(indexed.gallery, "dog", "--paths"), find(indexed.gallery, "-", given=b"dog")):
        assert b"whole photo" not in quiet.stderr


def test_paths_ended_by_nul_are_one_form(indexed: Indexed) -> None:
    by_null = find(indexed.gallery, "dog", "-0").stdout
    assert by_null
    assert find(indexed.gallery, "dog", "--paths", "-0").stdout == by_null
    assert find(indexed.gallery, "dog", "-0", "--paths").stdout == by_null


def test_sizes_are_those_of_the_objects_found(gallery: Path) -> None:
    def shares(*words: object) -> list[float]:
        done = find(gallery, "house", "--jsonl", "-n", PHOTOS, *words)
        with GalleryFile.open(gallery) as opened:
            found = []
            for record in records(done):
                photo_id = opened.connection.execute(
                    "select photo_id from files where path = ?", (record["path"],)
                ).get
                region = opened.regions(photo_id)[record["region"]]
                found.append(region.region.area / (region.region.rle.height * region.region.rle.width))
        return found

    small, large = shares("--max-size", "0.05"), shares("--min-size", "0.05")
    assert small
    assert large
    assert max(small) <= 0.05 <= min(large)
    assert max(large) < 1  # the whole photo is not an object


def test_nothing_good_enough_is_an_answer(indexed: Indexed) -> None:
    best = scores(find(indexed.gallery, "red house", "--jsonl"))
    none = find(indexed.gallery, "red house", "--min-score", "0.9999")
    assert (none.returncode, none.stdout) == (1, b"")
    assert f"nothing found: the best photo scores {best[0]:.3f}" in none.stderr.decode()
    some = scores(find(indexed.gallery, "red house", "--jsonl", "--min-score", best[4] - 1e-6))
    assert some == best[:5]


# Many queries


def test_queries_on_standard_input_are_answered_line_by_line(indexed: Indexed) -> None:
    given = "red house\n\n  dog \r\n\udcff\nbig “star”\n".encode("utf-8", "surrogateescape")
    done = find(indexed.gallery, "-", "-n", 3, given=given)
    assert done.returncode == 0, done.stderr
    answers = records(done)
    assert [answer["query"] for answer in answers] == ["red house", "dog", "big “star”"]
    assert all(set(answer) == {"query", "results"} for answer in answers)
    for answer in answers:
        alone = find(indexed.gallery, answer["query"], "--jsonl", "-n", 3)
        assert answer["results"] == records(alone)
    talk = done.stderr.decode()
    assert "line 2 is empty; skipped" in talk
    assert "line 4 is not UTF-8; skipped" in talk


def test_many_queries_make_one_data_set(indexed: Indexed, tmp_path: Path) -> None:
    done = matir(
        *("find", "-", "--no-rerank", "-n", 3, "--max-size", 0.9, "--db", indexed.gallery),
        *("--coco", tmp_path / "all.json", "--yolo", tmp_path / "set", "--masks", tmp_path / "masks"),
        given=b"red house\ndog\n",
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    content = json.loads((tmp_path / "all.json").read_bytes())
    assert [category["name"] for category in content["categories"]] == ["red house", "dog"]
    for number, answer in enumerate(answers, start=1):
        shown = {item["image_id"] for item in content["annotations"] if item["category_id"] == number}
        named = {image["file_name"] for image in content["images"] if image["id"] in shown}
        assert named == {result["path"] for result in answer["results"]}
        assert all(Path(result["mask_file"]).is_file() for result in answer["results"])
    assert b"names:\n  0: red house\n  1: dog\n" in (tmp_path / "set/data.yaml").read_bytes()
    assert done.stderr.count(b" masks written to ") == 1


def test_a_line_given_twice_is_answered_twice_and_is_one_category(indexed: Indexed, tmp_path: Path) -> None:
    mark, composed, decomposed = "\ufeff", "caf\u00e9", "cafe\u0301"
    lines = [f"{mark}red house", " red house\t", f"{mark}{composed}", f"{decomposed}{mark}", "red house"]
    done = find(
        *(indexed.gallery, "-", "-n", 3, "--coco", tmp_path / "all.json", "--yolo", tmp_path / "set"),
        given="\n".join(lines).encode(),
    )
    assert done.returncode == 0, done.stderr
    answers = records(done)
    assert [answer["query"] for answer in answers] == [*["red house"] * 2, *[composed] * 2, "red house"]
    assert answers[0] == answers[1] == answers[4]
    assert answers[2] == answers[3]
    content = json.loads((tmp_path / "all.json").read_bytes())
    assert [category["name"] for category in content["categories"]] == ["red house", composed]
    pairs = [(item["category_id"], item["image_id"]) for item in content["annotations"]]
    assert len(pairs) == len({*pairs}) == 6
    config = yaml.safe_load((tmp_path / "set/data.yaml").read_text())
    assert config["names"] == {0: "red house", 1: composed}
    labels = [path.read_text().splitlines() for path in (tmp_path / "set/labels").iterdir()]
    assert sum(map(len, labels)) == 6


def test_queries_in_another_encoding_are_told_how_to_convert(indexed: Indexed) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        given = "\ufeffred house\ndog\n".encode(encoding)
        done = find(indexed.gallery, "-", given=given)
        assert (done.returncode, done.stdout) == (2, b"")
        assert "in UTF-16; convert them: iconv -f UTF-16 -t UTF-8" in " ".join(done.stderr.decode().split())
        remedied = subprocess.run(
            ["iconv", "-f", "UTF-16", "-t", "UTF-8"], input=given, capture_output=True, check=True
        )
        assert len(records(find(indexed.gallery, "-", given=remedied.stdout))) == 2
    for given, name in (
        ("red house\ndog\n".encode("utf-16-le"), "UTF-16LE"),  # without a byte order mark
        ("\ufeffred house\n".encode("utf-32-le"), "UTF-32"),
    ):
        done = find(indexed.gallery, "-", given=given)
        assert (done.returncode, done.stdout) == (2, b"")
        assert f"in {name}; convert them" in " ".join(done.stderr.decode().split())


def test_a_query_without_results_has_an_answer_too(indexed: Indexed) -> None:
    done = find(indexed.gallery, "-", "--min-score", "0.9999", given=b"red house\ndog")
    assert done.returncode == 1
    assert records(done) == [{"query": "red house", "results": []}, {"query": "dog", "results": []}]
    assert "line 2: nothing found: the best photo scores" in done.stderr.decode()
    partly = find(indexed.gallery, "-", "--not", "dog", given=b"dog\nred house\n")
    assert partly.returncode == 0
    assert [bool(answer["results"]) for answer in records(partly)] == [False, True]
    assert "line 1: excluding 'dog' leaves nothing to find" in partly.stderr.decode()
    assert find(indexed.gallery, "-", given=b"\n\n").returncode == 1


def test_each_answer_is_there_before_the_next_query(model_set: Path, gallery: Path) -> None:
    with subprocess.Popen(
        [*MATIR, "find", "-", "-n", "2", "--db", str(gallery), "--models", str(model_set)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for query in ("red house", "yellow tree", "red house"):
            process.stdin.write(query + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert answer["query"] == query
            assert [record["judged"] for record in answer["results"]] == [True, True]
        process.stdin.close()
        assert process.wait() == 0


def test_a_file_of_queries_is_answered_as_its_lines_one_by_one(indexed: Indexed, tmp_path: Path) -> None:
    words = ("--no-rerank", "-n", 4, "--not", "car", "--explain", "--db", indexed.gallery)
    objects = ("red house", "dog", "tree left of a house", "car", "", "blue ball", "house that is not red")
    lines = [f"{words}\n".encode() for words in (*objects, *objects)] + [b"\xff\n", b"dog"]
    (tmp_path / "queries.txt").write_bytes(b"".join(lines))
    with (tmp_path / "queries.txt").open("rb") as queries:
        together = subprocess.run(
            [*MATIR, "find", "-", *map(str, words)], stdin=queries, capture_output=True, check=False
        )
    assert together.returncode == 0, together.stderr
    with subprocess.Popen(
        [*MATIR, "find", "-", *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = []
        for line in lines:
            process.stdin.write(line)
            process.stdin.flush()
            if line.strip() and b"\xff" not in line and line != lines[-1]:
                answers.append(process.stdout.readline())
        rest, talk = process.communicate()
    assert b"".join(answers) + rest == together.stdout
    assert talk == together.stderr
    assert len(records(together)) == 13


def test_a_writer_of_two_queries_that_waits_gets_both_answers(indexed: Indexed) -> None:
    with subprocess.Popen(
        [*MATIR, "find", "-", "--no-rerank", "--db", str(indexed.gallery)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for given in (b"dog\ntree\nho", b"use\ncar\n"):  # a line may come in two pieces
            process.stdin.write(given)
            process.stdin.flush()
            answers = [json.loads(process.stdout.readline())["query"] for _ in range(2)]
            assert answers == (["dog", "tree"] if given.startswith(b"dog") else ["house", "car"])
        process.stdin.close()
        assert process.wait() == 0


def test_a_reader_of_answers_that_stops_is_no_error(indexed: Indexed) -> None:
    command = shlex.join([*MATIR, "find", "-", "--no-rerank", "--rle", "--db", str(indexed.gallery)])
    script = f"set -o pipefail; yes dog | head -50 | {command} | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    assert json.loads(done.stdout)["query"] == "dog"
    assert done.stderr.decode().count("\n") <= 1  # the note of the tiny set
    assert done.returncode in (0, 141)  # 141: `head` ended the writer of queries


def test_an_example_goes_with_every_query(indexed: Indexed) -> None:
    photo = indexed.photos / "0002.png"
    done = find(indexed.gallery, "-", "--image", photo, "--weight", "1", "-n", 1, given=b"dog\ntree\n")
    assert [answer["results"][0]["path"] for answer in records(done)] == [str(photo)] * 2
    assert done.stderr.decode().count("example: the region") == 1
    assert os.fsencode(photo) in done.stderr
