"""The packaged model sets, and what is refused in other ones."""

from importlib import resources
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matir_cli.engines.options import read_options
from matir_cli.engines.registry import OPTIONS
from matir_cli.errors import MatirError, ModelSetInvalid, ModelSetUnknown, PartMissing
from matir_cli.model_sets.abilities import Abilities
from matir_cli.model_sets.catalogue import ModelSet, load_model_set, model_set_names
from matir_cli.model_sets.sources import HubSource, LocalSource, ModelFile, UrlSource

SHA = "ab" * 32

MINIMAL = """
name = "mine"
description = "one of my own"

[proposer]
name = "p"
engine = "sam2"
licence = "MIT"
[proposer.files.checkpoint]
hub = "owner/repo"
file = "folder/model.pt"
bytes = 10

[encoder]
name = "e"
engine = "alpha_clip"
licence = "MIT"
[encoder.options]
transform = "squash"
[encoder.files.visual]
url = "https://example.org/weights/visual.pth?download=1"
about_bytes = 20
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def read(folder: Path, text: str) -> ModelSet:
    return load_model_set(str(written(folder, text)))


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ModelSetInvalid) as caught:
        read(folder, text)
    assert caught.value.source == str(folder / "mine.toml")
    return caught.value.reason


def file_called(model_set: ModelSet, label: str) -> ModelFile:
    return next(file for file in model_set.files if file.label == label)


@pytest.mark.parametrize("name", ["full", "lite"])
def test_packaged_sets_name_engines_files_sizes_and_licences(name: str) -> None:
    model_set = load_model_set(name)
    assert (model_set.name, model_set.handle) == (name, name)
    assert [part.engine for part in model_set.parts] == ["sam2", "alpha_clip", "qwen_vl"]
    assert all(part.licence for part in model_set.parts)
    assert {file.label for file in model_set.files} == {
        "proposer.checkpoint",
        "encoder.visual",
        "encoder.text",
        "encoder.vocabulary",
        "judge.model",
        "judge.projector",
    }
    for file in model_set.files:
        assert file.bytes
        if isinstance(file.source, HubSource):
            assert len(file.source.revision) == 40, "a branch would change under its users"
    unpublished = {file.label for file in model_set.files if file.sha256 is None}
    assert unpublished == ({"encoder.visual"} if name == "full" else {"encoder.visual", "encoder.text"})


@pytest.mark.parametrize("name", ["open", "open-lite"])
def test_the_free_sets_are_free_and_pinned(name: str) -> None:
    model_set = load_model_set(name)
    assert [part.engine for part in model_set.parts] == ["sam2", "region_tokens", "qwen3_vl"]
    assert all(part.licence.startswith("Apache-2.0 ") for part in model_set.parts)
    assert model_set.abilities.commercial_use
    for part in model_set.parts:
        assert OPTIONS[part.engine]
        assert read_options(part.options, OPTIONS[part.engine], part.name)
    for file in model_set.files:
        assert file.exact
        assert file.sha256 is not None
        assert isinstance(file.source, HubSource)
        assert len(file.source.revision) == 40, "a branch would change under its users"


def test_a_set_is_for_commercial_use_if_all_its_parts_are() -> None:
    for name in model_set_names():
        model_set = load_model_set(name)
        research = any("research" in part.licence for part in model_set.parts)
        assert model_set.abilities.commercial_use == (not research)
        assert bool(model_set.note) == (research or name == "tiny")
        assert model_set.abilities.languages
        assert model_set.abilities.measured
        assert model_set.abilities.memory_mb


def test_what_a_set_can_do_is_optional_and_checked(tmp_path: Path) -> None:
    assert read(tmp_path, MINIMAL).abilities == Abilities()
    table = "\n[abilities]\nlanguages = 'Basque'\ncommercial_use = true\nmemory_mb = 7\nmeasured = 'x'\n"
    assert read(tmp_path, MINIMAL + table).abilities == Abilities("Basque", True, 7, "x")
    for line in ("memory_mb = 0", "memory_mb = '1'", "languages = 3", "speed = 2", "commercial_use = 'no'"):
        assert "abilities" in refused(tmp_path, f"{MINIMAL}\n[abilities]\n{line}\n")
    escape = refused(tmp_path, MINIMAL + '\n[abilities]\nmeasured = "\\u001b[31m"\n')
    assert "abilities.measured: must be one line" in escape


def test_every_packaged_set_is_named_like_its_file() -> None:
    assert {"full", "lite"} <= set(model_set_names())
    for name in model_set_names():
        assert load_model_set(name).name == name


def test_own_set_is_read_with_defaults(tmp_path: Path) -> None:
    model_set = read(tmp_path, MINIMAL)
    assert (model_set.name, model_set.note) == ("mine", "")
    assert model_set.part("encoder").options == {"transform": "squash"}
    assert model_set.part("proposer").options == {}
    checkpoint = file_called(model_set, "proposer.checkpoint")
    assert checkpoint.source == HubSource("owner/repo", "folder/model.pt", "main")
    assert (checkpoint.bytes, checkpoint.exact, checkpoint.sha256) == (10, True, None)
    visual = file_called(model_set, "encoder.visual")
    assert visual.source == UrlSource("https://example.org/weights/visual.pth?download=1", (), "visual.pth")
    assert (visual.bytes, visual.exact) == (20, False)
    with pytest.raises(PartMissing, match="judge"):
        model_set.part("judge")


def test_handle_of_own_set_works_in_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, MINIMAL)
    monkeypatch.chdir(tmp_path)
    handle = load_model_set("mine.toml").handle
    monkeypatch.chdir("/")
    assert load_model_set(handle).name == "mine"


def test_local_file_lies_beside_the_toml(tmp_path: Path) -> None:
    text = MINIMAL.replace('hub = "owner/repo"\nfile = "folder/model.pt"\nbytes = 10', 'path = "tiny/m.pt"')
    assert file_called(read(tmp_path, text), "proposer.checkpoint").source == LocalSource(
        tmp_path.resolve() / "tiny" / "m.pt"
    )


def test_unknown_set_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelSetUnknown) as caught:
        load_model_set("nope")
    assert {"full", "lite"} <= set(caught.value.known)
    with pytest.raises(ModelSetUnknown):
        load_model_set(str(tmp_path / "nope.toml"))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('name = "mine"', "", "`name` is missing"),
        ('name = "mine"', "name = 3", "name: Expected `str`, got `int`"),
        ('name = "mine"', 'name = "../x"', "name: letters, digits"),
        ('description = "one', 'extra = 1\ndescription = "one', "`extra` is not a key of this table"),
        ("one of my own", "one\\u001b[2Jown", "description: must be one line without control characters"),
        ('engine = "sam2"\n', "", "proposer: `engine` is missing"),
        ('engine = "sam2"', 'engine = "a.b"', "proposer.engine: "),
        ("bytes = 10", "", "proposer.files.checkpoint: `bytes` is missing"),
        ("bytes = 10", "bytes = -1", "proposer.files.checkpoint.bytes: Expected `int` >= 1"),
        ("bytes = 10", 'bytes = "10"', "proposer.files.checkpoint.bytes: Expected `int`, got `str`"),
        ("bytes = 10", "bytes = 10\nabout_bytes = 10", "`bytes` or `about_bytes`, not both"),
        (
            "bytes = 10",
            f'bytes = 10\nsha256 = "{SHA[1:]}"',
            "checkpoint.sha256: must be 64 hexadecimal digits",
        ),
        ("bytes = 10", "bytes = 10\nsha = 1", "checkpoint: `sha` is not a key of this table"),
        ("bytes = 10", 'bytes = 10\npath = "x"', "checkpoint: exactly one of `hub`, `url` and `path`"),
        ("bytes = 10", 'bytes = 10\nmirrors = ["https://a"]', "checkpoint.mirrors: does not go with `hub`"),
        ('hub = "owner/repo"\n', "", "checkpoint: exactly one of `hub`, `url` and `path`"),
        ('file = "folder/model.pt"\n', "", "checkpoint: `file` is missing"),
        ("files.checkpoint]", 'files."../x"]', "proposer.files.../x: a role is letters"),
        (
            "[proposer.files.checkpoint]",
            "[proposer.files]\n[proposer.other]",
            "proposer.files: Expected a table of length >= 1",
        ),
    ],
)
def test_the_wrong_key_is_named(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in MINIMAL
    assert reason in refused(tmp_path, MINIMAL.replace(old, new, 1))


@pytest.mark.parametrize(
    "path",
    [
        "../x.pt",
        "/etc/passwd",
        "a/../../x.pt",
        "a//b",
        "",
        ".",
        "..",
        ".hidden",
        "a\\\\..\\\\b",
        "C:x",
        "link/x",
        "a\\n",
    ],
)
def test_local_path_cannot_leave_the_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to("/")
    text = MINIMAL.replace('hub = "owner/repo"\nfile = "folder/model.pt"\nbytes = 10', f'path = "{path}"')
    assert refused(tmp_path, text).startswith("proposer.files.checkpoint.path: ")


def test_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    text = MINIMAL.replace('hub = "owner/repo"\nfile = "folder/model.pt"\nbytes = 10', 'path = "circle/x"')
    assert refused(tmp_path, text).startswith("proposer.files.checkpoint.path: ")


@pytest.mark.parametrize(
    "file", ["../model.pt", "/model.pt", "a/../../model.pt", "a\\\\b", ".git/config", "a b"]
)
def test_hub_file_and_revision_are_plain_paths(tmp_path: Path, file: str) -> None:
    old = 'file = "folder/model.pt"'
    assert "checkpoint.file: " in refused(tmp_path, MINIMAL.replace(old, f'file = "{file}"'))
    assert "checkpoint.revision: " in refused(tmp_path, MINIMAL.replace(old, f'{old}\nrevision = "{file}"'))


@pytest.mark.parametrize(
    "repo", ["repo", "a/b/c", "../b", "a/..", "a/b--c", "a/b.git", "a/-b", "a/b.", "a/ b"]
)
def test_hub_repository_is_owner_and_name(tmp_path: Path, repo: str) -> None:
    text = MINIMAL.replace('hub = "owner/repo"', f'hub = "{repo}"')
    assert refused(tmp_path, text) == 'proposer.files.checkpoint.hub: must be "owner/repository"'


@pytest.mark.parametrize("name", ["../v.pth", "a/b", "..", ".v", "", "v\\u0000", "a\\\\b"])
def test_name_on_disk_is_one_plain_name(tmp_path: Path, name: str) -> None:
    text = MINIMAL.replace("about_bytes = 20", f'about_bytes = 20\nfile = "{name}"')
    assert "encoder.files.visual.file: must be one plain file name" in refused(tmp_path, text)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/v.pth",
        "http://127.0.0.1.example.org/v.pth",
        "http://localhost.example.org/v.pth",
        "ftp://example.org/v.pth",
        "file:///etc/passwd",
        "https:///v.pth",
        "https://user:secret@example.org/v.pth",
        "https://example.org:port/v.pth",
        "https://[::1/v.pth",
        "https://example.org/a b.pth",
        "https://example.org/v.pth\\u000aHost: x",
        "example.org/v.pth",
    ],
)
def test_address_is_safe(tmp_path: Path, url: str) -> None:
    old = "https://example.org/weights/visual.pth?download=1"
    assert "encoder.files.visual.url: " in refused(tmp_path, MINIMAL.replace(old, url))
    mirrored = MINIMAL.replace("about_bytes = 20", f'about_bytes = 20\nmirrors = ["{url}"]')
    assert "encoder.files.visual.mirrors: " in refused(tmp_path, mirrored)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "127.8.8.8", "[::1]:80"])
def test_plain_http_is_for_this_machine(tmp_path: Path, host: str) -> None:
    url = f"http://{host}/v.pth"
    text = MINIMAL.replace("https://example.org/weights/visual.pth?download=1", url)
    source = file_called(read(tmp_path, text), "encoder.visual").source
    assert isinstance(source, UrlSource)
    assert source.url == url


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe", "it is not TOML"),
        (b"name = ", "it is not TOML"),
        (b"a = " + b"[" * 100_000, "it is not TOML"),
        (b"a = " + b"9" * 5000, "it is not TOML"),
        (b"# long\n" * 200_000, "it is larger than"),
    ],
)
def test_files_that_are_not_toml_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ModelSetInvalid, match=reason):
        load_model_set(str(path))


def test_folder_is_not_a_model_set(tmp_path: Path) -> None:
    with pytest.raises(ModelSetInvalid, match="it cannot be read"):
        load_model_set(f"{tmp_path}/")
    with pytest.raises(ModelSetInvalid, match="it cannot be read"):
        load_model_set("a\0b.toml")


VALUES = st.one_of(
    st.sampled_from(
        ["1", "-1", "1e400", "nan", "true", "[]", "{}", "[[]]", "1979-05-27", "9" * 30, '""', '"../x"']
    ),
    st.text(max_size=20).map(lambda text: '"' + "".join(f"\\U{ord(c):08x}" for c in text) + '"'),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 60), VALUES), min_size=1, max_size=3))
def test_any_value_anywhere_is_read_or_refused(tmp_path: Path, edits: list[tuple[int, str]]) -> None:
    lines = (resources.files("matir_cli.models") / "full.toml").read_text().splitlines()
    keyed = [number for number, line in enumerate(lines) if " = " in line]
    for place, value in edits:
        number = keyed[place % len(keyed)]
        lines[number] = f"{lines[number].partition(' = ')[0]} = {value}"
    path = written(tmp_path, "\n".join(lines))
    try:
        model_set = load_model_set(str(path))
    except MatirError:
        return
    assert all(file.label for file in model_set.files)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=200), st.text("[]{}.=\"'\\\n#ab1-", max_size=60).map(str.encode)))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(MatirError):
        load_model_set(str(path))


def test_a_set_says_how_regions_are_matched(tmp_path: Path) -> None:
    assert read(tmp_path, MINIMAL).match == "iou"
    assert read(tmp_path, 'match = "joint"\n' + MINIMAL).match == "joint"
    assert "match" in refused(tmp_path, 'match = "best"\n' + MINIMAL)
    # Nobody has measured the joint rule with real models yet.
    assert {name: load_model_set(name).match for name in model_set_names()} == {
        "full": "iou",
        "lite": "iou",
        "open": "iou",
        "open-lite": "iou",
        "tiny": "joint",
    }


def test_a_set_says_how_much_stage_1_counts_beside_the_judge(tmp_path: Path) -> None:
    assert read(tmp_path, MINIMAL).fusion == 0
    assert read(tmp_path, "fusion = 2.5\n" + MINIMAL).fusion == 2.5
    for value in ("-1", "1000", "nan", '"much"'):
        assert "fusion" in refused(tmp_path, f"fusion = {value}\n" + MINIMAL)
    # Nobody has measured it with real models yet.
    weights = {name: load_model_set(name).fusion for name in model_set_names()}
    assert {weights[name] for name in ("full", "lite", "open", "open-lite")} == {0}
    assert weights["tiny"] > 0
