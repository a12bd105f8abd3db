"""Every remedy that an error comes with is followed, in real processes, and helps."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import click
import pytest
from PIL import Image

from matir_cli import errors
from matir_cli.cli import group
from matir_cli.cli.boundary import explain
from matir_cli.gallery.database import GalleryFile
from matir_cli.search.index import rebuild_index
from tests.cli.test_boundary import KINDS, made
from tests.output.sidecar_files import FOREIGN, keywords
from tests.support.process import Indexed, matir

TINY = Path(__file__).parents[2] / "models/tiny.toml"

NOT_FOLLOWED = {
    errors.AnnotationsInvalid: "the file to correct is the user's; an evaluation takes minutes",
    errors.ClusterTooSmall: "needs Ray; tests/cluster bring it about",
    errors.ClusterUnavailable: "needs Ray; tests/cluster bring it about",
    errors.DecoderUnavailable: "needs a broken installation",
    errors.DiskFull: "needs a disk of the test's own",
    errors.DownloadFailed: "needs a server; tests/model_sets follow it with one of their own",
    errors.EngineFailed: "needs weights that compute nonsense; the remedy is another device",
    errors.ExtensionUnusable: "needs a broken installation",
    errors.GalleryBusy: "is said after a minute of waiting",
    errors.GalleryChanged: "is said of a race that was lost",
    errors.GalleryFailed: "is said of mistakes in SQLite or in its use",
    errors.GalleryIOFailed: "needs a disk that fails",
    errors.GalleryReadOnly: "root, as whom tests may run, may write everything",
    errors.GalleryTooNew: "needs a version that does not exist yet",
    errors.GalleryUnrecovered: "root, as whom tests may run, may write everything",
    errors.ListNotUtf8: "is about standard input, which these commands do not have",
    errors.MemoryTooSmall: "needs a machine with too little memory",
    errors.OutOfRange: "is followed below, as one of several usage errors",
    errors.PackageMissing: "needs an environment without the package, and a package index",
    errors.RegionFileInvalid: "the file to correct is the user's; the forms are in the manual",
    errors.RoomTooSmall: "needs a disk of the test's own",
    errors.WorkerRefused: "needs Ray, and two machines that differ",
    errors.WorkersFailed: "needs Ray, and a machine that fails",
}
"""Errors that no test can bring about or put right, with the reason."""


@dataclass(frozen=True)
class Place:
    """A folder to go wrong in: a gallery of its own and the pictures that it knows."""

    folder: Path
    gallery: Path
    photos: Path

    def find(self, *words: object, stage_1: bool = True) -> list[object]:
        return ["find", *words, *(["--no-rerank"] if stage_1 else []), "-n", 3, "--db", self.gallery]

    def run(self, *words: object) -> subprocess.CompletedProcess[bytes]:
        return matir(*words)

    def change(self, statement: str) -> None:
        with GalleryFile.open(self.gallery) as opened:
            opened.connection.execute(statement)

    def model_set(self, edit: Callable[[str], str] = str) -> Path:
        """A set of the tiny models, its TOML file edited."""
        if not (self.folder / "tiny").exists():
            (self.folder / "tiny").mkdir()
            for name in re.findall(r'"tiny/(.+)"', TINY.read_text()):
                shutil.copy(TINY.with_suffix("") / name, self.folder / "tiny")
        path = self.folder / "set.toml"
        path.write_text(edit(TINY.read_text()))
        return path


@pytest.fixture
def place(indexed: Indexed, tmp_path: Path) -> Place:
    gallery = Path(shutil.copy(indexed.gallery, tmp_path / "my gallery.db"))
    return Place(tmp_path, gallery, indexed.photos)


Steps = Iterator[list[object]]
"""Command lines: the first fails with the error, those after it follow the remedy and succeed. What is
done by hand happens in between."""


def gallery_missing(place: Place) -> Steps:
    yield ["find", "dog", "--no-rerank", "--db", place.folder / "other.db"]
    yield place.find("dog")


def gallery_empty(place: Place) -> Steps:
    place.gallery.unlink()
    with GalleryFile.open(place.gallery, create=True):
        pass
    yield place.find("dog")
    yield ["add", place.photos / "0000.png", "--db", place.gallery, "--models", "tiny"]
    yield place.find("dog")


def not_a_gallery(place: Place) -> Steps:
    (place.folder / "notes.txt").write_text("shopping")
    yield ["find", "dog", "--no-rerank", "--db", place.folder / "notes.txt"]
    yield place.find("dog")


def gallery_name_invalid(place: Place) -> Steps:
    named = place.gallery.rename(place.folder / os.fsdecode(b"\xff.db"))
    yield ["find", "dog", "--no-rerank", "--db", named]
    named.rename(place.gallery)
    yield place.find("dog")


def model_set_untrusted(place: Place) -> Steps:
    path = place.model_set()
    place.change(f"update models set model_set = '{path}'")
    yield place.find("dog")
    yield place.find("dog", "--models", path)


def photo_inaccessible(place: Place) -> Steps:
    yield place.find("--image", place.folder / "nowhere.png")
    yield place.find("--image", place.photos / "0000.png")


def gallery_damaged(place: Place) -> Steps:
    kept = shutil.copy(place.gallery, place.folder / "kept.db")
    place.change("update regions set rle = x'00'")
    yield place.find("dog")
    shutil.copy(kept, place.gallery)
    yield place.find("dog")


def index_damaged(place: Place) -> Steps:
    with GalleryFile.open(place.gallery) as opened:
        rebuild_index(opened, block_regions=8)  # otherwise so small a gallery has no blocks
    place.change("update codes set centre = x'00'")
    yield place.find("dog")
    yield ["compact", "--db", place.gallery]
    yield place.find("dog")


def photo_unknown(place: Place) -> Steps:
    yield ["show", "4711", "--db", place.gallery]
    listed = place.run("ls", "--db", place.gallery).stdout.splitlines()
    yield ["show", listed[0], "--db", place.gallery]


def merge_into_itself(place: Place) -> Steps:
    other = shutil.copy(place.gallery, place.folder / "other.db")
    yield ["merge", place.gallery, "--db", place.gallery]
    yield ["merge", other, "--db", place.gallery]


def model_mismatch(place: Place) -> Steps:
    changed = place.model_set(lambda text: text.replace('transform = "squash"', 'transform = "letterbox"'))
    yield [*place.find("dog"), "--models", changed]
    yield place.find("dog")


def model_set_unknown(place: Place) -> Steps:
    yield [*place.find("dog"), "--models", "tinny"]
    yield [*place.find("dog"), "--models", "tiny"]


def model_set_invalid(place: Place) -> Steps:
    path = place.model_set(lambda text: text.replace("text_heads = 4", "text_heads = 0"))
    yield [*place.find("dog"), "--models", path]
    yield [*place.find("dog"), "--models", place.model_set()]


def part_missing(place: Place) -> Steps:
    path = place.model_set(lambda text: text.split("[judge]")[0])
    yield [*place.find("dog", stage_1=False), "--models", path]
    yield [*place.find("dog"), "--models", path]


def reencoding_begun(place: Place) -> Steps:
    half_made = f"('encoder', 'large', '{'3' * 64}', './large.toml')"
    place.change(f"insert into next_models (role, name, weight_hash, model_set) values {half_made}")
    words: list[object] = ["reencode", "--models", "tiny", "--db", place.gallery]
    yield words
    yield [*words, "--restart"]


def defaults_invalid(place: Place) -> Steps:
    path = place.folder / "config.toml"
    path.write_text("[find]\nlimit = 0\n")
    os.environ["MATIR_CONFIG"] = str(path)
    try:
        yield place.find("dog")
        path.write_text("[find]\nlimit = 2\n")
        yield place.find("dog")
    finally:
        os.environ["MATIR_CONFIG"] = ""


def other_proposer(place: Place) -> Steps:
    path = place.model_set(lambda text: text.replace("points_per_side = 12", "points_per_side = 10"))
    words: list[object] = ["reencode", "--models", path, "--db", place.gallery]
    yield words
    place.model_set()
    yield words


def weights_missing(place: Place) -> Steps:
    path = place.model_set(lambda text: text.replace("qwen_vl.gguf", "qwen_vl_gone.gguf"))
    yield [*place.find("dog", stage_1=False), "--models", path]
    yield [*place.find("dog"), "--models", path]


def judge_file(place: Place) -> tuple[Path, Path]:
    """A model set with a judge's file of its own; return the set and the file."""
    own = Path(shutil.copy(TINY.parent / "tiny/qwen_vl.gguf", place.folder / "own.gguf"))
    return place.model_set(lambda text: text.replace("tiny/qwen_vl.gguf", own.name)), own


def weights_changed(place: Place) -> Steps:
    path, own = judge_file(place)
    line = f'path = "{own.name}"'
    published = sha256(own.read_bytes()).hexdigest()
    path.write_text(path.read_text().replace(line, f'{line}\nsha256 = "{published}"'))
    whole = own.read_bytes()
    own.write_bytes(whole + bytes(32))
    yield ["models", "verify", path]
    own.write_bytes(whole)
    yield ["models", "verify", path]


def checkpoint_invalid(place: Place) -> Steps:
    path, own = judge_file(place)
    whole = own.read_bytes()
    own.write_bytes(whole[:5000])
    words = [*place.find("dog", stage_1=False), "--candidates", 1, "--models", path]
    yield words
    own.write_bytes(whole)
    place.run("models", "pull", "--accept-changed", path)
    yield words


def context_too_small(place: Place) -> Steps:
    words = ["--candidates", 1, "--models", "tiny"]
    yield [*place.find("red " * 4000 + "house", stage_1=False), *words]
    yield [*place.find("red house", stage_1=False), *words]


def device_unavailable(place: Place) -> Steps:
    absent = "cuda" if sys.platform == "darwin" else "mps"
    words = [*place.find("dog", stage_1=False), "--candidates", 1, "--models", "tiny", "--device"]
    yield [*words, absent]
    yield [*words, "cpu"]


def photo_unreadable(place: Place) -> Steps:
    (place.folder / "notes.jpg").write_text("shopping")
    yield place.find("--image", place.folder / "notes.jpg")
    yield place.find("--image", place.photos / "0000.png")


def example_outside(place: Place) -> Steps:
    photo = place.photos / "0004.png"
    yield place.find("--image", photo, "--point", "5000,10")
    yield place.find("--image", photo, "--point", "70,100")


def example_blank(place: Place) -> Steps:
    photo = place.folder / "new.png"
    Image.new("RGB", (200, 200), (90, 120, 90)).save(photo)
    yield place.find("--image", photo, "--box", "150,150,160,160")
    with GalleryFile.open(place.gallery) as opened:
        box = opened.regions(5)[1].box
    corners = f"{box.x0},{box.y0},{box.x1},{box.y1}"
    yield place.find("--image", place.photos / "0004.png", "--box", corners)


def query_empty(place: Place) -> Steps:
    yield place.find(" ")
    yield place.find("dog led by rope")


def query_not_text(place: Place) -> Steps:
    yield place.find("caf\u00e9".encode("latin-1"))
    yield place.find("caf\u00e9".encode())


def query_contradicts(place: Place) -> Steps:
    yield place.find("red house", "--not", "red house")
    yield place.find("red house", "--not", "green house")


def output_exists(place: Place) -> Steps:
    (place.folder / "page.html").write_text("mine")
    yield place.find("dog", "--html", place.folder / "page.html")
    yield place.find("dog", "--html", place.folder / "other.html")
    yield place.find("dog", "--html", place.folder / "page.html", "--force")


def output_error(place: Place) -> Steps:
    yield ["show", "1", "--overlay", place.folder / "regions.gif", "--db", place.gallery]
    yield ["show", "1", "--overlay", place.folder / "regions.png", "--db", place.gallery]


def folder_vanished(place: Place) -> Steps:
    gone = place.folder / "gone"
    place.change(f"update files set path = replace(path, '{place.photos}', '{gone}') where photo_id < 4")
    yield ["sync", gone, "--db", place.gallery]
    yield ["sync", gone, "--drop-all", "--db", place.gallery]


def sidecar(place: Place, content: str, suffix: str = ".xmp") -> tuple[list[object], Path]:
    """Words of a command that labels one picture, and its sidecar, which holds `content`."""
    photo = Path(shutil.copy2(place.photos / "0007.png", place.folder / "photo.png"))
    place.change(f"update files set path = '{photo}' where path like '%0007.png'")
    path = photo.with_suffix(suffix)
    path.write_text(content, "utf-8")
    return ["tag", "dog", "--no-rerank", "-n", 1, "--in", photo, "--db", place.gallery], path


def sidecar_unusable(place: Place) -> Steps:
    words, path = sidecar(place, "")
    yield words
    path.rename(place.folder / "away")
    yield words
    assert keywords(path.with_suffix(".png.xmp")) == ["dog"]


def sidecar_regions_unusable(place: Place) -> Steps:
    words, path = sidecar(place, FOREIGN.replace('stDim:h="300"', 'stDim:h="3000"'))
    place.change("delete from vectors where region_id in (select id from regions where ordinal = 0)")
    yield words
    yield [*words, "--region", "none"]
    assert keywords(path) == ["holiday", "dog"]


def sidecar_elsewhere(place: Place) -> Steps:
    words, path = sidecar(place, FOREIGN)
    (place.folder / "store").mkdir()
    target = path.rename(place.folder / "store/kept.xmp")
    path.symlink_to(target)
    yield words
    yield [*words, "--region", "none", "--follow-links"]
    assert keywords(target) == ["holiday", "dog"]


def server_running(place: Place) -> Steps:
    place.run("serve", "--detach", "--db", place.gallery)
    yield ["serve", "--db", place.gallery]
    yield ["serve", "--stop", "--db", place.gallery]


def server_failed(place: Place) -> Steps:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield ["serve", "--db", place.gallery, "--port", taken.getsockname()[1]]
        yield ["serve", "--detach", "--db", place.gallery]
    yield ["serve", "--stop", "--db", place.gallery]


def no_gallery_left(place: Place) -> Steps:
    words = ["info", "--skip-missing", "--db"]
    yield [*words, place.folder / "none.db"]
    yield [*words, place.gallery]


def saved_search_unknown(place: Place) -> Steps:
    yield ["saved", "run", "dogs", "--db", place.gallery]
    yield ["saved", "list", "--db", place.gallery]


def saved_search_exists(place: Place) -> Steps:
    words = ["saved", "add", "dogs", "dog", "--db", place.gallery]
    place.run(*words)
    yield words
    yield [*words, "--replace"]


FOLLOWED: dict[type[errors.MatirError], Callable[[Place], Steps]] = {
    errors.CheckpointInvalid: checkpoint_invalid,
    errors.ContextTooSmall: context_too_small,
    errors.DeviceUnavailable: device_unavailable,
    errors.ExampleBlank: example_blank,
    errors.ExampleOutside: example_outside,
    errors.FolderVanished: folder_vanished,
    errors.GalleryDamaged: gallery_damaged,
    errors.GalleryEmpty: gallery_empty,
    errors.GalleryMissing: gallery_missing,
    errors.GalleryNameInvalid: gallery_name_invalid,
    errors.IndexDamaged: index_damaged,
    errors.MergeIntoItself: merge_into_itself,
    errors.ModelMismatch: model_mismatch,
    errors.ModelSetUntrusted: model_set_untrusted,
    errors.PhotoInaccessible: photo_inaccessible,
    errors.ModelSetInvalid: model_set_invalid,
    errors.ModelSetUnknown: model_set_unknown,
    errors.NoGalleryLeft: no_gallery_left,
    errors.NotAGallery: not_a_gallery,
    errors.DefaultsInvalid: defaults_invalid,
    errors.OtherProposer: other_proposer,
    errors.ReencodingBegun: reencoding_begun,
    errors.OutputError: output_error,
    errors.OutputExists: output_exists,
    errors.PartMissing: part_missing,
    errors.PhotoUnknown: photo_unknown,
    errors.PhotoUnreadable: photo_unreadable,
    errors.QueryContradicts: query_contradicts,
    errors.QueryEmpty: query_empty,
    errors.QueryNotText: query_not_text,
    errors.SavedSearchExists: saved_search_exists,
    errors.SavedSearchUnknown: saved_search_unknown,
    errors.ServerFailed: server_failed,
    errors.ServerRunning: server_running,
    errors.SidecarElsewhere: sidecar_elsewhere,
    errors.SidecarRegionsUnusable: sidecar_regions_unusable,
    errors.SidecarUnusable: sidecar_unusable,
    errors.WeightsChanged: weights_changed,
    errors.WeightsMissing: weights_missing,
}


def test_every_error_is_followed_or_has_a_reason() -> None:
    assert not FOLLOWED.keys() & NOT_FOLLOWED.keys()
    assert FOLLOWED.keys() | NOT_FOLLOWED.keys() == {*KINDS}


def beginning(kind: type[errors.MatirError]) -> str:
    """The remedy of an error up to its first fact, such as a path."""
    return re.split(r"'?(?:/a/b|the (?:model_set|source|gallery))", explain(made(kind))[1])[0].rstrip(". ")


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.__name__) for kind in FOLLOWED])
def test_following_the_remedy_helps(kind: type[errors.MatirError], place: Place) -> None:
    steps = FOLLOWED[kind](place)
    failed = place.run(*next(steps))
    told = failed.stderr.decode()
    assert failed.returncode in (2, 3), told
    assert beginning(kind) in told
    followed = 0
    for words in steps:
        done = place.run(*words)
        assert done.returncode == 0, done.stderr
        followed += 1
    assert followed


def commands_of(parent: click.Group) -> Iterator[click.Command]:
    context = click.Context(parent)
    for name in parent.list_commands(context):
        command = parent.get_command(context, name)
        assert command is not None
        yield from commands_of(command) if isinstance(command, click.Group) else [command]


def test_remedies_name_commands_and_options_that_exist() -> None:
    options = {
        option for command in commands_of(group.matir) for each in command.params for option in each.opts
    }
    remedies = " ".join(explain(made(kind))[1] for kind in KINDS)
    named = set(re.findall(r"--[a-z][a-z-]*", remedies))
    named -= {"--the", "--force-reinstall"}  # the argument of OutOfRange, and an option of pip
    assert named <= options
    assert len(named) > 10
    assert set(re.findall(r"matir ([a-z]+)", remedies)) <= group.COMMANDS.keys()


SAID = [
    (["--min-score", "nan"], "Choose another value for --min-score.", ["--min-score", "0"]),
    (["--weight", "0.3"], "--weight is the share of --image", ["--weight", "0.3", "--image", "PHOTO"]),
    (
        ["--box", "0,0,9,9"],
        "refers to the --image or --unlike before it, which is missing",
        ["--image", "PHOTO", "--box", "0,0,500,500"],
    ),
    (["--min-p", "0.5"], "omit --no-rerank", ["--min-score", "0"]),
    (["house"], 'in quotes: matir find "dog house"', None),
    (["--preview", "--json"], "--preview goes with the table, not with --json", ["--preview"]),
]
"""Options after `find dog`, what is said, and the options that are right."""


@pytest.mark.parametrize(("wrong", "said", "right"), SAID, ids=[case[1] for case in SAID])
def test_following_what_a_usage_error_says_helps(
    place: Place, wrong: list[str], said: str, right: list[str] | None
) -> None:
    photo = str(place.photos / "0003.png")
    failed = place.run(*place.find("dog"), *wrong)
    assert failed.returncode == 2
    assert said in " ".join(failed.stderr.decode().split())
    words = place.find("dog house") if right is None else place.find("dog", *right)
    done = place.run(*(photo if word == "PHOTO" else word for word in words))
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_what_an_empty_search_points_at_lists_the_photos(place: Place) -> None:
    done = place.run(*place.find("dog", "--in", place.folder / "elsewhere"))
    assert done.returncode == 1
    (command,) = re.findall(r"see: matir (.*)\)", done.stderr.decode())
    listed = place.run(*shlex.split(command))
    assert bytes(place.photos / "0000.png") in listed.stdout.splitlines()
