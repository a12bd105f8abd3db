"""The tools of `matir mcp`, called by the client of the protocol's own package."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent
from PIL import Image, ImageChops

from matir_cli.mcp.arguments import MOST_ON_SHEET, MOST_PER_PAGE
from matir_cli.mcp.pictures import LARGEST_PICTURE, SHEET_SIDE, jpeg
from tests.support.agent import Agent, run_agent
from tests.support.process import PHOTOS, Indexed, matir, records
from tests.support.server import run_server

QUERY = "red house"

TOOLS = [
    "search_photos",
    "next_results",
    "similar_objects",
    "view_photo",
    "view_results",
    "gallery_facts",
    "save_objects",
]


def search(agent: Agent, **arguments: Any) -> Any:
    """The first page of a search without the judge."""
    return agent.call("search_photos", **{"text": QUERY, "judge": False, **arguments})


def same_numbers(found: dict[str, Any], printed: dict[str, Any]) -> bool:
    """Whether a result is the one that `matir find --jsonl` prints."""
    names = ("path", "score", "stage1_score", "p_true", "grounding", "box", "width", "height")
    assert found["number"] == printed["rank"]
    return all(found[name] == printed.get(name) for name in names)


def test_tools_say_what_they_take_give_and_do(agent: Agent) -> None:
    assert list(agent.tools) == TOOLS
    for name, tool in agent.tools.items():
        assert tool.description
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is (name != "save_objects")
        assert tool.annotations.destructive_hint is False
        assert tool.annotations.open_world_hint is False
        for schema in (tool.input_schema, tool.output_schema):
            assert schema is not None
            jsonschema.Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
    assert agent.client.instructions is not None
    assert agent.client.server_info is not None
    assert agent.client.server_info.name == "matir"


def test_a_judged_search_is_that_of_find(agent: Agent, searched: Path, model_set: Path) -> None:
    found = agent.call("search_photos", text=QUERY, limit=5)
    reports = [*agent.progress]
    printed = records(matir("find", QUERY, "-n", 5, "--jsonl", "--db", searched, "--models", model_set))
    assert len(found["results"]) == found["total"] == 5
    assert all(same_numbers(*pair) for pair in zip(found["results"], printed, strict=True))
    assert found["judged"] >= 5
    assert found["next_cursor"] is None
    assert {message for _, _, message in reports} >= {"judging", "pointing at the object"}
    assert all(before[0] < after[0] for before, after in pairwise(reports))
    assert all(total == PHOTOS + 5 for _, total, _ in reports)
    [text] = agent.result("search_photos", {"text": QUERY, "limit": 5}).content
    assert isinstance(text, TextContent)
    assert json.loads(text.text)["results"] == found["results"]


def test_pages_hold_all_results_once(agent: Agent) -> None:
    whole = search(agent, limit=PHOTOS)
    assert [each["number"] for each in whole["results"]] == list(range(1, PHOTOS + 1))
    page = search(agent, limit=PHOTOS, page_size=5)
    pages = [page]
    while page["next_cursor"] is not None:
        page = agent.call("next_results", cursor=page["next_cursor"])
        pages.append(page)
    assert [len(each["results"]) for each in pages] == [5, 5, 2]
    assert [each for one in pages for each in one["results"]] == whole["results"]
    assert {each["total"] for each in pages} == {PHOTOS}


def test_settings_are_those_of_find(agent: Agent, searched: Path, model_set: Path, indexed: Indexed) -> None:
    common = ("--jsonl", "--no-rerank", "--db", searched, "--models", model_set)
    first = search(agent)["results"][0]
    shapes = {-1: "portrait", 0: "square", 1: "landscape"}
    orientation = shapes[(first["width"] > first["height"]) - (first["width"] < first["height"])]
    for arguments, words in (
        ({"min_size": 0.01, "max_size": 0.5}, ("--min-size", 0.01, "--max-size", 0.5)),
        ({"without": ["blue car"]}, ("--not", "blue car")),
        ({"places": [str(indexed.photos)], "limit": 3}, ("--in", indexed.photos, "-n", 3)),
        ({"min_score": 0.35}, ("--min-score", 0.35)),
        ({"unique": True, "sort": "path", "rating": [0, 0]}, ("--unique", "--sort", "path", "--rating", 0)),
        ({"has_gps": False, "no_keywords": ["a*"]}, ("--no-gps", "--no-keyword", "a*")),
        ({"orientation": orientation}, ("--orientation", orientation)),
    ):
        found = search(agent, **arguments)["results"]
        limit = () if "-n" in words else ("-n", 20)
        printed = records(matir("find", QUERY, *words, *limit, *common))
        assert found
        assert all(same_numbers(*pair) for pair in zip(found, printed, strict=True))
    assert search(agent, places=["/nowhere"])["notes"] == ["nothing found: no photo passes the filters"]
    for none in ({"since": "2030"}, {"near": [-30.5, 0], "within": 2500}, {"keywords": ["a"]}):
        assert search(agent, **none)["total"] == 0
    assert "the best photo scores" in search(agent, min_score=0.999)["notes"][0]


def test_results_say_where_they_come_from(agent: Agent, searched: Path, model_set: Path) -> None:
    words = ("find", QUERY, "-n", 3, "--jsonl", "--explain", "--db", searched, "--models", model_set)
    found = agent.call("search_photos", text=QUERY, limit=3, explain=True)["results"]
    assert [each["explanation"] for each in found] == [each["explanation"] for each in records(matir(*words))]
    assert all(each["explanation"] is None for each in search(agent)["results"])


def test_examples_are_regions_photos_and_boxes(agent: Agent) -> None:
    first = search(agent)["results"][0]
    listed = agent.call("view_photo", photo=first["photo"], all_regions=True)["outlined"]
    region = listed[0]
    similar = agent.call("similar_objects", region=region["region"], limit=3)
    assert (similar["results"][0]["photo"], similar["results"][0]["region"]) == (
        first["photo"],
        region["region"],
    )
    assert similar["results"][0]["score"] == pytest.approx(1, abs=0.01)
    x0, y0, x1, y1 = region["box"]
    for example in (
        {"example_regions": [region["region"]]},
        {"example_photo": first["photo"], "example_box": region["box"]},
        {"example_photo": first["photo"], "example_point": [(x0 + x1) / 2, (y0 + y1) / 2]},
        {"example_photo": first["photo"]},
    ):
        found = agent.call("search_photos", **example, limit=3)
        assert found["total"] == 3
        assert found["judged"] == 0
    both = agent.call("search_photos", text=QUERY, judge=False, example_regions=[region["region"]], weight=1)
    assert both["results"][0]["photo"] == first["photo"]


def test_several_examples_and_what_they_must_not_be_like(agent: Agent) -> None:
    shown = search(agent)["results"][:2]
    one, other = (agent.call("view_photo", photo=each["photo"], all_regions=True) for each in shown)
    good, bad = (each["outlined"][0]["region"] for each in (one, other))
    both = agent.call("search_photos", example_regions=[good, bad], limit=2)["results"]
    assert {each["photo"] for each in both} == {each["photo"] for each in shown}
    liked, disliked, *_ = alone = agent.call("search_photos", example_regions=[good], limit=20)["results"]
    apart = {
        each["photo"]: each["score"]
        for each in agent.call(
            "search_photos", example_regions=[good], unlike_regions=[disliked["region"]], limit=20
        )["results"]
    }
    assert len(apart) == len(alone)
    assert apart[liked["photo"]] == liked["score"]  # it is nearer to the good example
    assert apart[disliked["photo"]] < disliked["score"]


def test_a_photo_is_shown_with_its_object(agent: Agent) -> None:
    page = search(agent, max_size=0.9)
    found = page["results"][0]
    view, picture = agent.look("view_photo", photo=found["photo"], search=page["search"], size=512)
    plain, unmarked = agent.look("view_photo", photo=found["photo"], size=512)
    assert picture is not None
    assert unmarked is not None
    assert max(picture.size) == max(unmarked.size) == 512
    [outlined] = view["outlined"]
    assert (outlined["region"], outlined["box"]) == (found["region"], found["box"])
    assert 0 < outlined["share"] < 0.9
    assert plain["outlined"] == []
    assert view["path"] == found["path"]
    # What differs lies where the object is.
    scale = picture.width / view["width"]
    changed = ImageChops.difference(picture.convert("L"), unmarked.convert("L")).point(
        lambda value: 255 if value > 60 else 0
    )
    assert changed.getbbox() is not None
    box = tuple(round(value * scale) for value in found["box"])
    assert changed.crop((box[0], box[1], box[2], box[3])).getbbox() is not None
    everything = agent.call("view_photo", photo=found["photo"], all_regions=True)
    assert len(everything["outlined"]) == everything["regions"] - 1
    chosen = everything["outlined"][1]["region"]
    one = agent.call("view_photo", photo=found["photo"], regions=[chosen])
    assert [each["region"] for each in one["outlined"]] == [chosen]


def test_a_contact_sheet_shows_the_numbers_of_results(agent: Agent) -> None:
    page = search(agent)
    sheet, picture = agent.look("view_results", search=page["search"], first=3, count=7)
    assert picture is not None
    assert max(picture.size) <= SHEET_SIDE
    assert [(each["number"], each["photo"]) for each in sheet["photos"]] == [
        (each["number"], each["photo"]) for each in page["results"][2:9]
    ]
    assert all(each["available"] for each in sheet["photos"])
    assert (sheet["columns"], sheet["total"]) == (3, PHOTOS)
    one, single = agent.look("view_results", search=page["search"], first=PHOTOS)
    assert [each["number"] for each in one["photos"]] == [PHOTOS]
    assert single is not None
    assert single.width < picture.width


def test_objects_are_saved_as_find_writes_them(
    agent: Agent, searched: Path, model_set: Path, tmp_path: Path
) -> None:
    page = search(agent, max_size=0.9, limit=4)
    for form in ("masks", "cutouts"):
        saved = agent.call("save_objects", search=page["search"], form=form)
        matir(
            *("find", QUERY, "--no-rerank", "-n", 4, "--max-size", 0.9, f"--{form}", tmp_path / form),
            *("--db", searched, "--models", model_set),
        )
        folder = Path(saved["folder"])
        assert folder.parent.name == "here"
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            path.name: path.read_bytes() for path in (tmp_path / form).iterdir()
        }
        assert {each["name"] for each in saved["files"]} == {path.name for path in folder.iterdir()}
        assert [each["number"] for each in saved["files"]] == [1, 2, 3, 4]
    chosen = page["results"][1]["photo"]
    again = agent.call("save_objects", search=page["search"], photos=[chosen])
    assert again["folder"] != saved["folder"]
    assert [each["photo"] for each in again["files"]] == [chosen]


def test_facts_of_the_gallery(agent: Agent, searched: Path) -> None:
    facts = agent.call("gallery_facts")
    assert facts["photos"] == PHOTOS
    assert facts["gallery"] == str(searched)
    assert facts["text_search"] is facts["judge"] is None
    assert facts["server"] is False
    assert Path(facts["writes_to"]).name == "here"


@pytest.mark.parametrize(
    ("tool", "arguments", "part"),
    [
        ("search_photos", {}, "give a text, example_regions or an example_photo"),
        ("search_photos", {"text": " "}, 'Describe an object, such as: matir find "dog led by rope"'),
        ("search_photos", {"text": QUERY, "limit": 1001}, "$.limit"),
        ("search_photos", {"text": QUERY, "page_size": MOST_PER_PAGE + 1}, "$.page_size"),
        ("search_photos", {"text": "x" * 2001}, "$.text"),
        ("search_photos", {"text": QUERY, "weight": float("nan")}, "$.weight"),
        ("search_photos", {"text": QUERY, "min_p": 0.5, "judge": False}, "judge=true"),
        ("search_photos", {"text": QUERY, "since": "yesterday"}, "is no date"),
        ("search_photos", {"text": QUERY, "places": ["photos"]}, "absolute"),
        ("search_photos", {"text": QUERY, "image": "/etc/passwd"}, "image"),
        ("search_photos", {"example_regions": [1] * 32, "example_photo": 1}, "32 examples at most"),
        ("search_photos", {"example_box": [0, 0, 1, 1]}, "give a text"),
        ("search_photos", {"example_regions": [1], "example_point": [1, 1]}, "a region or a photo"),
        ("search_photos", {"unlike_regions": [1]}, "give a text"),
        ("search_photos", {"example_regions": [1], "unlike_regions": [1] * 33}, "unlike_regions"),
        ("search_photos", {"example_photo": 1, "example_box": [5, 5, 1, 1]}, "X0 < X1"),
        ("search_photos", {"example_regions": [10**6]}, "holds no photo of region 1000000"),
        ("search_photos", {"text": QUERY, "without": [f"{QUERY} "]}, "Describe with --not"),
        ("next_results", {"cursor": "../../etc/passwd"}, "this is no cursor"),
        ("next_results", {"cursor": "0123456789ab.0.0"}, "this is no cursor"),
        ("next_results", {"cursor": "0123456789ab.0.5"}, "search again with search_photos"),
        ("similar_objects", {"region": -1}, "$.region"),
        ("similar_objects", {"region": 10**30}, "region"),
        ("view_photo", {"photo": 10**6}, "holds no photo 1000000"),
        ("view_photo", {"photo": "1"}, "$.photo"),
        ("view_photo", {"photo": 1, "size": 1025}, "$.size"),
        ("view_photo", {"photo": 1, "regions": [10**6]}, "has no region 1000000; list them"),
        ("view_photo", {"photo": 1, "search": "none"}, "no search 'none' is kept"),
        ("view_results", {"search": "none"}, "no search 'none' is kept"),
        ("view_results", {"search": "none", "count": MOST_ON_SHEET + 1}, "$.count"),
        ("save_objects", {"search": "none"}, "no search 'none' is kept"),
        ("save_objects", {"search": "none", "folder": "/tmp"}, "folder"),  # noqa: S108
        ("save_objects", {"search": "none", "form": "coco"}, "$.form"),
    ],
    ids=str,
)
def test_a_call_that_cannot_be_answered_says_why(
    agent: Agent, tool: str, arguments: dict[str, Any], part: str
) -> None:
    assert part in agent.refusal(tool, **arguments)


def test_results_that_are_not_there_are_named(agent: Agent) -> None:
    page = search(agent, limit=2)
    outside = next(n for n in range(1, PHOTOS + 1) if n not in [each["photo"] for each in page["results"]])
    name = page["search"]
    assert "is no result of search" in agent.refusal("view_photo", photo=outside, search=name)
    assert "the search has 2 results" in agent.refusal("view_results", search=name, first=3)
    assert "none of these photos" in agent.refusal("save_objects", search=name, photos=[outside])


def test_an_unknown_tool_is_no_tool(agent: Agent) -> None:
    with pytest.raises(MCPError, match=r"there is no tool rm\\x07; choose from: search_photos, "):
        agent.result("rm\x07", {})


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["../../etc/passwd", "/etc/passwd", "\x1b[31m", "\x00", QUERY]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_any_arguments_get_a_result_or_one_line(agent: Agent, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(TOOLS))
    known = sorted(agent.tools[name].input_schema["properties"])
    arguments = data.draw(
        st.dictionaries(st.sampled_from([*known, "path"]), VALUES | st.integers(1, 9), max_size=4)
    )
    arguments.setdefault("judge", False) if name == "search_photos" else None
    result = agent.result(name, arguments)
    if result.is_error:
        [content] = result.content
        assert isinstance(content, TextContent)
        assert content.text
        assert "\n" not in content.text
        assert "internal error" not in content.text
    else:
        schema = agent.tools[name].output_schema
        assert schema is not None
        jsonschema.validate(result.structured_content, schema)


def test_the_same_with_a_server(agent: Agent, searched: Path, model_set: Path) -> None:
    asked: list[dict[str, Any]] = [
        {"text": QUERY, "limit": 4},
        {"text": "green tree", "limit": 3, "budget": 0},
        {"text": QUERY, "judge": False, "without": ["blue car"]},
        {"example_regions": [2], "limit": 5},
    ]
    alone = [agent.call("search_photos", **each)["results"] for each in asked]
    errors = agent.refusal("search_photos", text=QUERY, without=[f"{QUERY} "])
    with run_server(searched, model_set) as server:
        before = server.status.served
        assert agent.call("gallery_facts")["server"] is True
        assert [agent.call("search_photos", **each)["results"] for each in asked] == alone
        assert agent.refusal("search_photos", text=QUERY, without=[f"{QUERY} "]) == errors
        assert server.status.served == before + len(asked) + 1
        with run_agent(searched, model_set, "--no-server") as other:
            assert other.call("search_photos", **asked[0])["results"] == alone[0]
            assert "save_objects" not in other.tools
            with pytest.raises(MCPError, match="no tool save_objects; choose"):
                other.result("save_objects", {"search": "none"})
        assert server.status.served == before + len(asked) + 1
    assert agent.call("search_photos", **asked[0])["results"] == alone[0]


def test_pictures_are_bounded() -> None:
    noise = Image.effect_noise((3000, 2000), 255).convert("RGB")
    content = jpeg(noise)
    assert len(content) <= LARGEST_PICTURE
    assert jpeg(Image.new("RGB", (10, 10)))
