"""Presets of model sets: names, options, and the gallery that goes on with its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matir_cli.engines.options import read_options
from matir_cli.engines.registry import OPTIONS
from matir_cli.errors import (
    ModelMismatch,
    ModelSetInvalid,
    ModelSetUnknown,
    ModelSetUntrusted,
    PresetMismatch,
    PresetMissing,
    PresetsContradict,
)
from matir_cli.gallery.database import GalleryFile
from matir_cli.maintenance.many import open_galleries
from matir_cli.maintenance.merge import merge_gallery
from matir_cli.model_sets.catalogue import (
    DEFAULT_MODEL_SET,
    is_file_name,
    load_model_set,
    model_set_names,
    sets_with_preset,
)
from matir_cli.model_sets.choice import choose_next_set, choose_set
from matir_cli.model_sets.presets import PRESETS, PresetName, add_preset, split_preset, title_of
from matir_cli.model_sets.session import ModelSession
from matir_cli.records import ModelIdentity
from tests.support.preset_set import FAST, make_preset_set


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a set with the preset `fast`."""
    return str(make_preset_set(tmp_path_factory.mktemp("mine")))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty state folder of the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryFile]:
    with GalleryFile.open(tmp_path / "gallery.db", create=True) as gallery:
        yield gallery


def bound(path: Path, models: str) -> GalleryFile:
    """Create a gallery that is bound to the models of a set."""
    gallery = GalleryFile.open(path, create=True)
    ModelSession(gallery, load_model_set(models), "cpu").bind()
    return gallery


@given(st.text(), st.sampled_from(PRESETS), st.sampled_from(PRESETS))
def test_a_name_with_a_preset_is_taken_apart_again(name: str, preset: PresetName, other: PresetName) -> None:
    base, _ = split_preset(name)
    named = add_preset(base, preset)
    assert split_preset(named) == (base, preset)
    assert split_preset(add_preset(named, other)) == (base, other)
    assert add_preset(named, None) == named
    assert is_file_name(named) == is_file_name(base)
    assert title_of(named) == f"{base}, {preset}"
    assert split_preset(f"{base}:{preset}.") == (f"{base}:{preset}.", None)


@pytest.mark.parametrize("name", model_set_names())
def test_presets_of_the_catalogue_are_valid_and_change_something(name: str) -> None:
    plain = load_model_set(name)
    for preset, replaced in plain.presets.items():
        chosen = load_model_set(f"{name}:{preset}")
        assert (chosen.handle, chosen.preset, chosen.title) == (
            f"{name}:{preset}",
            preset,
            f"{name}, {preset}",
        )
        assert chosen.files == plain.files
        for part in chosen.parts:
            before = plain.part(part.kind)
            given = [read_options(each.options, OPTIONS[each.engine], each.engine) for each in (before, part)]
            assert (given[0].identity() != given[1].identity()) == (part.kind in replaced)
            assert part.options == {**before.options, **replaced.get(part.kind, {})}


def test_sets_with_as_many_points_as_the_paper_have_a_fast_preset() -> None:
    assert sets_with_preset("fast") == ["full", "lite", "open", "open-lite"]
    fast = load_model_set("lite:fast").part("proposer").options
    assert (fast["points"], fast["repeat_threshold"], fast["points_per_side"]) == ("adaptive", 0.9, 32)


def test_the_tiny_set_has_a_thorough_preset_that_asks_more_points() -> None:
    assert sets_with_preset("thorough") == ["tiny"]
    plain, thorough = (load_model_set(name).part("proposer").options for name in ("tiny", "tiny:thorough"))
    assert thorough["points_per_side"] == 2 * plain["points_per_side"]


def test_a_preset_replaces_options_of_its_part_alone(mine: str) -> None:
    plain, fast = load_model_set(mine), load_model_set(f"{mine}:fast")
    assert (plain.preset, fast.preset, fast.handle) == (None, "fast", f"{mine}:fast")
    assert fast.part("proposer").options == {**plain.part("proposer").options, **FAST}
    # Figures of a trial are of the options that are replaced.
    assert plain.part("proposer").reference != () == fast.part("proposer").reference
    assert fast.part("encoder") == plain.part("encoder")
    assert fast.part("judge") == plain.part("judge")


def test_a_set_without_the_preset_names_those_that_have_it() -> None:
    for name in ("tiny:fast", "lite:thorough"):
        with pytest.raises(PresetMissing) as caught:
            load_model_set(name)
        base, preset = split_preset(name)
        assert preset is not None
        assert (caught.value.model_set, caught.value.preset) == (base, preset)
        assert list(caught.value.known) == sets_with_preset(preset)
    for name in ("full:quick", "full:fast:fast", ":fast", "full:"):
        with pytest.raises(ModelSetUnknown):
            load_model_set(name)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("[presets.quick.proposer]\npoints = 'adaptive'", "presets.quick: a preset is one of fast, thorough"),
        ("[presets.fast.judge]\nmax_pixels = 3", "presets.fast.judge: the set has no such part"),
        ("[presets.fast.files]\nvisual = 3", "presets.fast.files: the set has no such part"),
        ("[presets.fast]", "presets"),
        ("[presets.fast.encoder]", "presets"),
        ("[presets.fast]\nencoder = 3", "presets"),
        ("[presets]\nfast = 'encoder'", "presets"),
    ],
)
def test_presets_are_checked(tmp_path: Path, table: str, reason: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        f"""
        name = "mine"
        description = "x"
        [encoder]
        name = "e"
        engine = "alpha_clip"
        licence = "none"
        files.visual.path = "visual.pth"
        {table}
        """
    )
    with pytest.raises(ModelSetInvalid) as caught:
        load_model_set(str(path))
    assert caught.value.reason.startswith(reason)


def test_options_of_a_preset_are_checked_as_those_of_a_part(mine: str, gallery: GalleryFile) -> None:
    wrong = Path(mine).with_name("wrong.toml")
    wrong.write_text(Path(mine).read_text().replace("repeat_threshold", "repeat_treshold"))
    ModelSession(gallery, load_model_set(str(wrong)), "cpu").config("proposer")
    with pytest.raises(ModelSetInvalid, match="repeat_treshold"):
        ModelSession(gallery, load_model_set(f"{wrong}:fast"), "cpu").config("proposer")


def test_a_new_gallery_has_the_preset_that_is_asked_for(mine: str) -> None:
    assert choose_set(None, None, "fast").handle == f"{DEFAULT_MODEL_SET}:fast"
    assert choose_set(None, mine, "fast").handle == f"{mine}:fast" == choose_set(None, f"{mine}:fast").handle
    assert choose_set(None, f"{mine}:fast", "fast").handle == f"{mine}:fast"
    with pytest.raises(PresetsContradict):
        choose_set(None, f"{mine}:fast", "thorough")
    with pytest.raises(PresetMissing):
        choose_set(None, "tiny", "fast")


def test_a_gallery_goes_on_with_its_preset(mine: str, tmp_path: Path) -> None:
    with bound(tmp_path / "fast.db", f"{mine}:fast") as gallery:
        assert gallery.model_set() == f"{mine}:fast"
        sets = [choose_set(gallery, name) for name in (None, mine, f"{mine}:fast")]
        sets += [choose_set(gallery, name, "fast") for name in (None, mine)]
        for chosen in sets:
            assert chosen.handle == f"{mine}:fast"
            ModelSession(gallery, chosen, "cpu").bind()
        assert choose_set(gallery, "tiny").handle == "tiny"


@pytest.mark.parametrize(("made", "asked"), [("", ":fast"), (":fast", "")])
def test_another_preset_is_refused(mine: str, tmp_path: Path, made: str, asked: str) -> None:
    with bound(tmp_path / "made.db", mine + made) as gallery:
        session = ModelSession(gallery, load_model_set(mine + asked), "cpu")
        names = title_of(mine + made), title_of(mine + asked)
        for use in (session.bind, lambda: session.config("proposer")):
            with pytest.raises(PresetMismatch) as caught:
                use()
            assert (caught.value.stored, caught.value.wanted) == names
        session.config("encoder")  # vectors do not depend on it
        with pytest.raises(ModelMismatch) as other:
            ModelSession(gallery, load_model_set("tiny" if made else f"{mine}:fast"), "cpu").bind()
        assert gallery.model_set() == mine + made
        assert isinstance(other.value, PresetMismatch) == (not made)
        with bound(tmp_path / "asked.db", mine + asked) as source, pytest.raises(PresetMismatch):
            list(merge_gallery(gallery, source, dry_run=True))
    with pytest.raises(PresetMismatch):
        open_galleries([tmp_path / "made.db", tmp_path / "asked.db"])


def test_a_merged_gallery_has_the_preset_of_its_first_source(
    mine: str, tmp_path: Path, gallery: GalleryFile
) -> None:
    with bound(tmp_path / "source.db", f"{mine}:fast") as source:
        list(merge_gallery(gallery, source, dry_run=False))
    assert gallery.model_set() == f"{mine}:fast"
    assert gallery.model("proposer") is not None


def test_a_gallery_from_elsewhere_names_presets_of_the_catalogue_alone(
    mine: str, gallery: GalleryFile
) -> None:
    def name(model_set: str) -> None:
        for role in ("proposer", "encoder"):
            gallery.bind_model(role, ModelIdentity(f"a {role}", "1" * 64), model_set)

    name("lite:fast")
    assert choose_set(gallery, None).title == "lite, fast"
    for path in (f"{mine}:fast", "x.toml:fast", "../x:thorough"):
        name(path)
        with pytest.raises(ModelSetUntrusted):
            choose_set(gallery, None)
    for unknown in ("lite:slow", "lite:fast:fast"):
        name(unknown)
        with pytest.raises(ModelSetUnknown):
            choose_set(gallery, None)
    name("tiny:fast")
    with pytest.raises(PresetMissing):
        choose_set(gallery, None)


def test_a_new_encoder_keeps_the_preset_that_the_regions_are_of(mine: str, tmp_path: Path) -> None:
    other = Path(mine).with_name("other.toml")
    other.write_text(Path(mine).read_text().replace('transform = "squash"', 'transform = "letterbox"'))
    with bound(tmp_path / "fast.db", f"{mine}:fast") as gallery:
        assert choose_next_set(gallery, str(other)).handle == f"{other}:fast"
        assert choose_next_set(gallery, "tiny").handle == "tiny"
    with bound(tmp_path / "plain.db", mine) as gallery:
        assert choose_next_set(gallery, str(other)).handle == str(other)
        assert choose_next_set(gallery, f"{other}:fast").handle == f"{other}:fast"
