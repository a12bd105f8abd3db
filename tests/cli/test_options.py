"""Options on a command line become typed, frozen values."""

from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from matir_cli.cli.group import matir
from matir_cli.cli.options.cluster import ray_options
from matir_cli.cli.options.common import PathName, SectionedCommand, check_distinct
from matir_cli.cli.options.metadata import metadata_options
from matir_cli.cli.options.output import OutputOptions, output_options
from matir_cli.cli.options.query import QueryArguments, query_options
from matir_cli.cli.options.search import check_judge_options, search_options
from matir_cli.cluster.options import RayOptions
from matir_cli.errors import OutputExists
from matir_cli.records import Box, Point
from matir_cli.search.filters import Filters
from matir_cli.search.pipeline import SearchOptions
from matir_cli.search.query import Example, Query
from tests.manual.generate import walk_commands


def parse(
    decorate: Callable[[Callable[..., object]], Callable[..., object]], name: str, *words: str
) -> object:
    """The value that a command with these options gets as its parameter `name`."""
    values: list[object] = []

    def take(**given: object) -> None:
        assert [*given] == [name]
        values.append(given[name])

    command = click.command(cls=SectionedCommand, sections={})(decorate(take))
    done = CliRunner().invoke(command, words, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return values[0]


def test_without_options_a_search_has_its_defaults() -> None:
    assert parse(search_options, "options") == SearchOptions()


def test_every_option_of_a_search_arrives() -> None:
    words = ("-n", "3", "--no-rerank", "--no-ground", "--candidates", "7", "--min-score", "0.1")
    more = (
        "--min-p",
        "0.2",
        "--min-iou",
        "0.3",
        "--refine",
        "--fresh",
        "--budget",
        "4",
        "--whole",
        "--unique",
    )
    assert parse(search_options, "options", *words, *more) == SearchOptions(
        limit=3,
        candidates=7,
        rerank=False,
        ground=False,
        min_score=0.1,
        min_p=0.2,
        min_iou=0.3,
        refine=True,
        fresh=True,
        budget=4.0,
        whole=True,
        unique=True,
    )


def test_a_least_probability_needs_a_judge() -> None:
    options = SearchOptions(min_p=0.5)
    assert options.asks_judge(Query("dog"))
    check_judge_options(options, Query("dog"))
    check_judge_options(SearchOptions(rerank=False), Query("dog"))
    for silent, query in (
        (SearchOptions(min_p=0.5, rerank=False), Query("dog")),
        (options, Query(None, (Example(Path("a.jpg")),))),
    ):
        assert not silent.asks_judge(query)
        with pytest.raises(click.UsageError, match="--min-p needs the judge"):
            check_judge_options(silent, query)


def test_a_query_arrives_with_its_filters(tmp_path: Path) -> None:
    words = [
        "a dog",
        "--image",
        "a.jpg",
        "--box",
        "1,2,3,4",
        "--weight",
        "0.2",
        "--not",
        "cat",
        "--not",
        "cat",
    ]
    words += ["--in", str(tmp_path), "--since", "2024-05", "--until", "2024-06-01 12:30", "--camera", "x"]
    arguments = parse(query_options, "arguments", *words, "--min-size", "0.1", "--max-size", "0.9")
    example = Example(Path("a.jpg"), Box(1, 2, 3, 4), None)
    filters = Filters((tmp_path,), "2024-05", "2024-06-01T12:30", "x", 0.1, 0.9)
    assert arguments == QueryArguments(Query("a dog", (example,), 0.2, ("cat",)), filters)


def test_filters_by_metadata_go_with_the_others() -> None:
    def both(command: Callable[..., object]) -> Callable[..., object]:
        return query_options(metadata_options(command))

    words = ["a dog", "--camera", "x", "--near", "48.5,-2", "--within", "5km", "--no-gps"]
    words += ["--rating", "3+", "--keyword", "a", "--keyword", "b*", "--no-keyword", "c"]
    arguments = parse(both, "arguments", *words, "--orientation", "square")
    assert isinstance(arguments, QueryArguments)
    assert arguments.filters == Filters(
        camera="x",
        near=(48.5, -2),
        within=5000,
        has_gps=False,
        orientation="square",
        rating=(3, 5),
        keywords=("a", "b*"),
        no_keywords=("c",),
    )
    for wrong in (["--rating", "9"], ["--keyword", " "], ["--near", "x"], ["--within", "5km"]):
        with pytest.raises(click.UsageError):
            parse(both, "arguments", "a dog", *wrong)
    nothing = parse(both, "arguments", "a dog")
    assert isinstance(nothing, QueryArguments)
    assert nothing.filters is None


def test_an_example_alone_is_a_query() -> None:
    arguments = parse(query_options, "arguments", "--image", "a/b.jpg", "--point", "1.5,2")
    assert isinstance(arguments, QueryArguments)
    assert arguments.query.examples == (Example(Path("a/b.jpg"), None, Point(1.5, 2)),)
    assert (arguments.filters, arguments.is_empty, arguments.title) == (None, False, "like b.jpg")
    nothing = parse(query_options, "arguments")
    assert isinstance(nothing, QueryArguments)
    assert nothing.is_empty


@st.composite
def example_words(draw: st.DrawFn) -> tuple[list[str], dict[str, list[Example]]]:
    """Options that show examples, and the examples that they mean."""
    words, shown = list[str](), dict[str, list[Example]](image=[], unlike=[])
    for number in range(draw(st.integers(0, 6))):
        role, mark = draw(st.sampled_from(sorted(shown))), draw(st.sampled_from(["", "box", "point"]))
        x, y = draw(st.integers(0, 9)), draw(st.integers(0, 9))
        words += draw(
            st.sampled_from([[f"--{role}", f"{number}.jpg"], [f"--{role}={number}.jpg"], ["--not", "a cat"]])
        )
        if words[-1] == "a cat":
            continue
        words += {
            "": [],
            "box": ["--box", f"{x},{y},{x + 1},{y + 2}"],
            "point": ["--camera", "c", f"--point={x},{y}"],
        }[mark]
        box = Box(x, y, x + 1, y + 2) if mark == "box" else None
        point = Point(x, y) if mark == "point" else None
        shown[role].append(Example(Path(f"{number}.jpg"), box, point))
    return words, shown


@given(example_words())
@settings(derandomize=True, max_examples=60, deadline=None)
def test_a_box_or_point_belongs_to_the_example_before_it(
    given_words: tuple[list[str], dict[str, list[Example]]],
) -> None:
    words, shown = given_words
    arguments = parse(query_options, "arguments", "a dog", *words)
    assert isinstance(arguments, QueryArguments)
    query = arguments.query
    assert (query.text, query.rule) == ("a dog", "max")
    assert query.examples == tuple(shown["image"])
    assert query.unlike == tuple(shown["unlike"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--box 1,2,3,4 --image a.jpg",
            "--box refers to the --image or --unlike before it, which is missing",
        ),
        ("--point 1,2 --unlike a.jpg", "--point refers to the --image or --unlike before it"),
        ("--image a.jpg --point 1,2 --point 3,4", "for another object in it, repeat --image"),
        ("--image b.jpg --unlike a.jpg --box 1,2,3,4 --point 1,2", "--unlike a.jpg; for another object"),
        ("--image b.jpg --unlike a.jpg --box 4,2,3,4", "X0 < X1"),
        ("--image b.jpg --box 1,2,3,4 --image a.jpg --box 1,2", "is not X0,Y0,X1,Y1"),
        ("--image a.jpg " * 33, "--image may be given 32 times at most"),
        ("--image a.jpg " + "--unlike a.jpg " * 33, "--unlike may be given 32 times at most"),
        ("--unlike a.jpg --weight 0.3", "give both"),
        ("--image a.jpg --examples least", "'least' is not one of 'max', 'mean'"),
    ],
)
def test_examples_that_are_not_clear_are_refused(words: str, said: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        parse(query_options, "arguments", *words.split())
    assert said in caught.value.format_message()


def test_several_examples_are_named_in_a_few_words() -> None:
    arguments = parse(
        query_options, "arguments", *["--image", "a/b.jpg", "--image", "c.jpg", "--unlike", "d.jpg"]
    )
    assert isinstance(arguments, QueryArguments)
    assert arguments.title == "like b.jpg and 1 other"
    only = parse(query_options, "arguments", "--unlike", "d.jpg")
    assert isinstance(only, QueryArguments)
    assert only.is_empty


def test_outputs_arrive_checked(tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    output = parse(output_options, "output", "--paths", "-0", "--rle", "--html", str(page), "--masks", "m")
    expected = OutputOptions(
        *("null", True, False, False, False, Path("m"), None, 0, "transparent", None, None, None),
        *(0.0, 0.0, page, False),
    )
    assert output == expected
    assert expected.writes
    assert expected.needs_pixels
    page.write_bytes(b"")
    with pytest.raises(OutputExists):
        parse(output_options, "output", "--html", str(page))
    assert parse(output_options, "output", "--html", str(page), "--force")
    with pytest.raises(click.UsageError, match="goes with the table"):
        parse(output_options, "output", "--preview", "--json")


def test_no_two_outputs_are_one_file(tmp_path: Path) -> None:
    check_distinct(Path("a"), Path("b"), None, None, Path("-"), Path("-"))
    with pytest.raises(click.UsageError, match="written twice"):
        check_distinct(tmp_path / "a", tmp_path / "b" / ".." / "a")


def test_help_has_its_options_in_sections() -> None:
    @click.command(cls=SectionedCommand, sections={"First": ("b",), "Second": ("a",)})
    @click.option("--a", help="the letter a")
    @click.option("--b", help="the letter b")
    def command() -> None:
        pass

    text = CliRunner().invoke(command, ["--help"]).output
    order = ["First:", "--b", "Second:", "--a", "Other options:", "--help"]
    assert [text.index(each) for each in order] == sorted(text.index(each) for each in order)


def path_parameters() -> list[tuple[str, PathName]]:
    """Every argument and option of any command that is a path, by command and name."""
    found = []
    for name, command in walk_commands(matir, "matir"):
        for parameter in command.params:
            kind = parameter.type
            assert not isinstance(kind, click.Path) or isinstance(kind, PathName), (name, parameter.name)
            if isinstance(kind, PathName):
                found.append((f"{name} {parameter.name}", kind))
    return found


def test_no_path_on_the_command_line_may_be_empty() -> None:
    parameters = path_parameters()
    assert len(parameters) > 30
    for name, kind in parameters:
        with pytest.raises(click.BadParameter, match=r"empty: write \."):
            kind.convert("", None, None)
        assert kind.exists or kind.convert("./-", None, None) == Path.cwd() / "-", name


def test_the_dash_is_a_stream_or_refused() -> None:
    streams = set()
    for name, kind in path_parameters():
        if kind.allow_dash:
            assert kind.convert("-", None, None) == Path("-")
            streams.add(name)
        else:
            with pytest.raises(click.BadParameter, match="- is no stream here"):
                kind.convert("-", None, None)
    found = {f"matir {command} {name}" for command in ("find", "saved run") for name in ("coco", "html")}
    assert streams == {"matir add paths", "matir export coco", *found}


def test_standard_output_holds_one_form() -> None:
    given = parse(output_options, "output", "--coco", "-")
    assert isinstance(given, OutputOptions)
    assert given.uses_stdout
    for words in (["--coco", "-", "--html", "-"], ["--html", "-", "--json"], ["--coco", "-", "--preview"]):
        with pytest.raises(click.UsageError, match="one form of output only"):
            parse(output_options, "output", *words)


def test_ray_is_off_by_default_and_local_without_an_address() -> None:
    assert parse(ray_options, "ray") is None
    assert parse(ray_options, "ray", "--ray") == RayOptions()
    words = ("--workers", "3", "--gpus-per-worker", "0.5", "--cpus-per-worker", "2")
    more = ("--shared-files", "--ship-models")
    every = RayOptions("10.0.0.1:6379", 3, 0.5, 2, shared_files=True, ship_models=True)
    assert parse(ray_options, "ray", "--ray=10.0.0.1:6379", *words, *more) == every


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "2"], "--workers goes with --ray"),
        (["--ship-models"], "--ship-models goes with --ray"),
        (["--ray", "photos"], "'photos' is no HOST:PORT"),
        (["--ray", "ray://head:10001"], "is no HOST:PORT"),
        (["--ray", "--workers", "0"], "0 is not in the range"),
    ],
)
def test_options_of_workers_that_cannot_be_meant_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        parse(ray_options, "ray", *words)
