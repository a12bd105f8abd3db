"""The HTTP API, against its own description."""

import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image
from pycocotools import mask as coco

from matir_cli.search.filters import Filters
from matir_cli.search.pipeline import SearchOptions
from matir_cli.server.searches import SearchBody
from tests.support.load import run_clients
from tests.support.process import PHOTOS, matir, records
from tests.support.server import Server, run_server

QUERY = "red house"


def check(server: Server, schema: str, value: object) -> None:
    """Check a value against a schema of the description."""
    components = server.get("/api/openapi.json")["components"]
    jsonschema.validate(value, {"$ref": f"#/components/schemas/{schema}", "components": components})


def events_of(server: Server, search: dict[str, Any], last: int | None = None) -> Iterator[tuple[str, Any]]:
    """The events of a search, each with its name."""
    connection = server.connect()
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    connection.request("GET", search["events"], headers=headers)
    response = connection.getresponse()
    assert response.headers["Content-Type"].startswith("text/event-stream")
    name = ""
    for line in response:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
    connection.close()


def results_of(server: Server, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The final results of a search."""
    *_, (name, final) = events_of(server, server.post("/api/searches", body))
    assert name == "final", final
    found: list[dict[str, Any]] = final["results"]
    return found


def test_a_judged_search_comes_event_by_event(server: Server) -> None:
    search = server.post("/api/searches", {"text": QUERY, "limit": 5, "fresh": True, "certainty": 1})
    check(server, "Started", search)
    events = list(events_of(server, search))
    names = [name for name, _ in events if name != "waiting"]
    assert names == ["stage1", *["verdict"] * PHOTOS, *["grounded"] * 5, "final"]
    for name, data in events:
        check(server, {"grounded": "Result"}.get(name, name.capitalize()), data)
    assert [data["asked"] for name, data in events if name == "verdict"] == list(range(1, PHOTOS + 1))
    final = events[-1][1]
    fusion = events[0][1]["fusion"]
    worth = {
        data["photo"]: data["logit_margin"] + fusion * data["stage1_score"]
        for name, data in events
        if name == "verdict"
    }
    best = sorted(worth, key=lambda photo: -worth[photo])
    assert [each["photo"] for each in final["results"]] == best[:5]
    assert (final["candidates"], final["judged"], final["complete"]) == (PHOTOS, PHOTOS, True)
    assert final["unlikely"] == 0
    printed = records(matir("find", QUERY, "--jsonl", "-n", 5, "--certainty", 1, *server.options))
    assert [each["result"] for each in final["results"]] == printed
    # A listener that was cut off goes on where it was; one that comes late gets everything.
    assert list(events_of(server, search)) == events
    state = server.get(f"/api/searches/{search['id']}")
    check(server, "State", state)
    assert state["over"]
    assert list(events_of(server, search, last=state["events"] - 2)) == events[-1:]


def test_a_search_is_stopped_after_the_photo_being_judged(gallery: Path, slow_set: Path) -> None:
    with run_server(gallery, slow_set) as slow:
        search = slow.post("/api/searches", {"text": QUERY, "certainty": 1})
        names = Counter[str]()
        last: Any = None
        for name, data in events_of(slow, search):
            names[name] += 1
            last = data
            if names == {"stage1": 1, "verdict": 1}:
                assert slow.request("POST", search["stop"])[0] == 204
        assert names["final"] == 1
        assert last["complete"] is False
        assert 1 <= last["judged"] == names["verdict"] < PHOTOS
        assert len(last["results"]) == last["judged"]


def test_the_object_of_a_region_is_found_in_all_photos(server: Server) -> None:
    photo = results_of(server, {"text": QUERY, "rerank": False})[0]
    shown = server.get(f"/api/photos/{photo['photo']}")
    check(server, "Photo", shown)
    regions = server.get(f"/api/photos/{photo['photo']}/regions")
    check(server, "Regions", regions)
    assert [each["ordinal"] for each in regions["regions"]] == list(range(len(regions["regions"])))
    assert all(each["outline"].startswith("M") for each in regions["regions"])
    region = regions["regions"][1]
    similar = server.get(f"/api/regions/{region['id']}/similar?limit=3")["results"]
    for each in similar:
        check(server, "Result", each)
    assert len(similar) == 3
    assert (similar[0]["photo"], similar[0]["region_id"]) == (photo["photo"], region["id"])
    assert similar[0]["result"]["score"] == pytest.approx(1, abs=0.01)
    # The same as an example, and as a box around it.
    box = region["box"]
    for example in ({"region": region["id"]}, {"photo": photo["photo"], "box": box}):
        assert results_of(server, {"examples": [example], "limit": 3}) == similar
    # Several are merged, and what is unlike them is moved down.
    other = similar[1]["region_id"]
    both = {"examples": [{"region": region["id"]}, {"region": other}], "limit": 2}
    found = results_of(server, both)
    assert {each["region_id"] for each in found} == {region["id"], other}
    assert all(each["result"]["score"] == pytest.approx(1, abs=0.01) for each in found)
    (mean,) = results_of(server, {**both, "rule": "mean", "limit": 1})
    assert mean["result"]["score"] < 0.9999
    unlike = results_of(server, {"examples": [{"region": region["id"]}], "unlike": [{"region": other}]})
    assert unlike[0]["region_id"] != other
    # A box that fits no region is found by the proposer in the stored picture.
    width, height = shown["width"], shown["height"]
    odd = {"photo": photo["photo"], "box": [0, 0, width * 0.6, height * 0.6]}
    assert len(results_of(server, {"examples": [odd], "limit": 3})) == 3
    middle = {"photo": photo["photo"], "point": [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]}
    assert len(results_of(server, {"text": QUERY, "rerank": False, "examples": [middle]})) == PHOTOS


def test_results_say_where_they_come_from(server: Server) -> None:
    body: dict[str, Any] = {
        "text": "red house left of a tree",
        "limit": 3,
        "candidates": 4,
        "certainty": 1,
        "without": ["car"],
    }
    wanted = {"search": body, "photo": 0}

    def explain(photo: int, **changes: object) -> Any:
        asked = {**wanted, "photo": photo, "search": {**body, **changes}}
        return server.post("/api/explanations", asked)["explanation"]

    # Nothing is remembered yet, and the judge is not asked.
    assert "verdict" not in explain(1)
    results = results_of(server, {**body, "explain": True})
    for each in results:
        check(server, "Result", each)
        made = each["result"]["explanation"]
        assert "verdict" in made
        assert explain(each["photo"]) == made
        alone = explain(each["photo"], rerank=False)
        assert alone["stage1"] == made["stage1"]
        assert "verdict" not in alone
        # What the list was cut off by does not count for a photo that is in it.
        assert explain(each["photo"], unique=True, min_p=1, budget=0, sort="path")["stage1"] == made["stage1"]
    assert explain(1, since="2999") is None
    words = ("-n", 3, "--candidates", 4, "--certainty", 1, "--not", "car", "--explain")
    printed = records(matir("find", body["text"], "--jsonl", *words, *server.options))
    assert [each["result"] for each in results] == printed
    for changes, status in (
        ({"photo": 10**9}, 404),
        ({"photo": "1"}, 400),
        ({"path": "/etc/passwd"}, 400),
        ({"search": {**body, "since": "yesterday"}}, 400),
        ({"search": {}}, 400),
    ):
        code, _, content = server.request("POST", "/api/explanations", {**wanted, "photo": 1, **changes})
        assert code == status
        check(server, "Error", json.loads(content))


def test_the_description_has_the_settings_and_records_of_find(server: Server) -> None:
    schemas = server.get("/api/openapi.json")["components"]["schemas"]
    settings = schemas["Search"]["properties"]
    assert set(settings) == set(SearchBody.__struct_fields__)
    assert {f.name for f in fields(SearchOptions)} - {"filters"} <= set(settings)
    assert {f.name for f in fields(Filters)} - {"whole"} <= set(settings)
    defaults = SearchBody(text="")
    assert all(
        each["default"] == getattr(defaults, name) for name, each in settings.items() if "default" in each
    )
    printed = json.loads(files("matir_cli.manual").joinpath("schemas/find.json").read_text())["$defs"]
    shared = [name for name in printed if name.startswith("Expla") or name.endswith("Cosine")]
    assert len(shared) == 10
    for name in shared:
        here = json.dumps(schemas[name]).replace("/components/schemas/", "/$defs/")
        assert json.loads(here) == printed[name]


@pytest.mark.parametrize("size", [1, 160, 200, 5000])
def test_pictures_are_at_most_as_large_as_asked_for(server: Server, size: int) -> None:
    status, headers, content = server.request("GET", f"/api/photos/1/image?size={size}")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert "private" in headers["Cache-Control"]
    picture = Image.open(io.BytesIO(content))
    photo = server.get("/api/photos/1")
    most = min(size if size in (160, 320, 640, 1024) else {1: 160, 200: 320, 5000: 1024}[size], 1024)
    assert max(picture.size) == min(most, max(photo["mask_width"], photo["mask_height"]))
    assert server.request("GET", f"/api/photos/1/image?size={size}")[2] == content


def test_exports_are_the_files_of_find(server: Server, tmp_path: Path) -> None:
    search = server.post("/api/searches", {"text": QUERY, "rerank": False, "limit": 4})
    *_, (_, final) = events_of(server, search)
    chosen = [each["photo"] for each in final["results"][:3]]
    body = {"search": search["id"], "photos": chosen}

    def export(form: str) -> tuple[str, bytes]:
        status, headers, content = server.request("POST", "/api/exports", {**body, "form": form})
        assert status == 200, content
        assert "attachment" in headers["Content-Disposition"]
        return headers["Content-Type"], content

    matir(
        *("find", QUERY, "--no-rerank", "-n", 3, "--masks", tmp_path / "masks", *server.options),
        *("--cutouts", tmp_path / "cutouts"),
    )
    for form in ("masks", "cutouts"):
        kind, content = export(form)
        assert kind == "application/zip"
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            exported = {name: archive.read(name) for name in archive.namelist()}
        assert exported == {path.name: path.read_bytes() for path in (tmp_path / form).iterdir()}
        assert len(exported) == 3
    kind, content = export("paths")
    assert kind.startswith("text/plain")
    assert content.decode().splitlines() == [each["result"]["path"] for each in final["results"][:3]]
    data = json.loads(export("coco")[1])
    assert [category["name"] for category in data["categories"]] == [QUERY]
    assert sorted(image["id"] for image in data["images"]) == sorted(chosen)
    assert all(coco.area(annotation["segmentation"]) > 0 for annotation in data["annotations"])
    wrongs: list[dict[str, object]] = [{"search": "none"}, {"form": "tar"}, {"path": "/etc/passwd"}]
    wrongs.append({"photos": []})
    for wrong in wrongs:
        status, _, answer = server.request("POST", "/api/exports", {**body, "form": "masks", **wrong})
        assert status in (400, 404)
        check(server, "Error", json.loads(answer))


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({}, "describe an object"),
        ({"text": QUERY, "limit": 1001}, "limit"),
        ({"text": QUERY, "limit": 0}, "limit"),
        ({"text": QUERY, "candidates": 10**9}, "candidates"),
        ({"text": "x" * 2001}, "text"),
        ({"text": QUERY, "min_p": 2}, "min_p"),
        ({"text": QUERY, "min_p": 0.5, "rerank": False}, "min_p needs the judge"),
        ({"text": QUERY, "since": "yesterday"}, "is no date"),
        ({"text": QUERY, "places": ["photos"]}, "absolute"),
        ({"text": QUERY, "examples": [{"path": "/etc/passwd"}]}, "path"),
        ({"examples": [{"photo": 1, "region": 1}]}, "a region or a photo"),
        ({"examples": [{"photo": 1}] * 33}, "examples"),
        ({"unlike": [{"photo": 1}]}, "show one in examples"),
        ({"examples": [{"photo": 1}], "rule": "least"}, "rule"),
        ({"examples": [{"photo": 1, "box": [5, 5, 1, 1]}]}, "X0 < X1"),
        ({"text": QUERY, "image": "/etc/passwd"}, "image"),
        ([QUERY], "object"),
    ],
    ids=str,
)
def test_impossible_searches_are_refused(server: Server, body: object, part: str) -> None:
    status, _, content = server.request("POST", "/api/searches", body)
    assert status == 400
    answer = json.loads(content)
    check(server, "Error", answer)
    assert part in answer["error"]


def test_a_search_that_fails_says_why(server: Server) -> None:
    for body, kind in (
        ({"text": "  "}, "QueryEmpty"),
        ({"text": QUERY, "without": [QUERY]}, "QueryContradicts"),
        ({"examples": [{"photo": 1, "box": [9e8, 9e8, 9.1e8, 9.1e8]}]}, "ExampleOutside"),
        ({"examples": [{"region": 10**9}]}, "PhotoUnknown"),
        ({"text": QUERY, "unlike": [{"region": 10**9}]}, "PhotoUnknown"),
        ({"examples": [{"region": 1}], "unlike": [{"region": 1}]}, "QueryContradicts"),
    ):
        ((name, data),) = events_of(server, server.post("/api/searches", body))
        assert (name, data["kind"]) == ("error", kind)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/photos/999999", 404),
        ("/api/photos/999999/image", 404),
        ("/api/photos/999999/regions", 404),
        (f"/api/photos/{10**30}", 404),
        ("/api/regions/999999/similar", 404),
        ("/api/photos/1/image?size=0", 400),
        ("/api/photos/1/image?size=x", 400),
        ("/api/photos/%2fetc%2fpasswd/image", 404),
        ("/api/photos/..%2f..%2fetc/image", 404),
        ("/api/searches/0", 404),
        ("/api/searches/0/events", 404),
        ("/etc/passwd", 404),
    ],
)
def test_what_is_not_there(server: Server, path: str, status: int) -> None:
    assert server.request("GET", path)[0] == status


def test_a_body_that_is_too_long_is_refused(server: Server) -> None:
    status, _, _ = server.request("POST", "/api/searches", {"text": "x" * (1 << 20)})
    assert status == 413


def test_a_photo_that_was_removed_is_gone(gallery: Path, model_set: Path) -> None:
    with run_server(gallery, model_set) as server:
        path = server.get("/api/photos/1")["paths"][0]
        assert server.request("GET", "/api/photos/1/image")[0] == 200
        assert matir("rm", path, "--db", gallery).returncode == 0
        assert server.request("GET", "/api/photos/1/image")[0] == 404


def test_many_clients_at_once(server: Server) -> None:
    load = run_clients(server, PHOTOS, 3)
    assert load.wrong == []
    assert set(load.statuses) <= {200, 202, 429}
    assert load.statuses[202] > 16
    assert load.statuses[200] >= 100 + load.statuses[202]
    assert load.memory[1] < load.memory[0] + (16 << 20)
    assert server.status.searches == 0
