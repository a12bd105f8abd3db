"""`matir models` as a real process, and the hub's library against a server that answers like the hub."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from matir_cli.cli.text import readable_size
from matir_cli.model_sets.catalogue import load_model_set, model_set_names
from tests.support.file_server import FileServer, Served, serving
from tests.support.process import on_a_terminal

BODY = bytes(range(256)) * 4000
SMALL = b'{"model": "BPE"}'
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_PATH = f"/owner/repo/resolve/{COMMIT}/model.safetensors"
BEARER = "hf_of_this_test"
SMALL_PATH = "/owner/repo/resolve/main/tokenizer.json"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_blob(content: bytes) -> str:
    """The ETag that the hub gives a file kept in git itself."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class Machine:
    """A user's machine: a folder for everything, and the commands run on it."""

    def __init__(self, folder: Path, site: FileServer) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MATIR_"))},
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder / "data"),
            "HF_HOME": str(folder / "hf"),
            "HF_ENDPOINT": site.url,
            "NO_PROXY": "*",
        }

    def command(self, *words: str, limit: int | None = None) -> list[str]:
        if limit is None:
            return [sys.executable, "-m", "matir_cli", "models", *words]
        # Python ignores SIGXFSZ: a write beyond the limit is an OSError, as on a full disk.
        code = (
            f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
            "from matir_cli.cli.main import main; main()"
        )
        return [sys.executable, "-c", code, "models", *words]

    def run(
        self, *words: str, limit: int | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words, limit=limit),
            env={**self.environment, **variables},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def write_set(self, encoder: str, proposer: str = 'path = "p.bin"', note: str = "") -> str:
        (self.folder / "p.bin").write_bytes(b"local")
        (self.folder / "mine.toml").write_text(
            f"""
            name = "mine"
            description = "one of my own"
            note = "{note}"
            [proposer]
            name = "p"
            engine = "sam2"
            licence = "licence of p"
            [proposer.files.checkpoint]
            {proposer}
            [encoder]
            name = "e"
            engine = "alpha_clip"
            licence = "licence of e"
            {encoder}
            """
        )
        return "mine.toml"

    def url_set(self, site: FileServer) -> str:
        keys = f'url = "{site.url}/w.pt"\nbytes = {len(site.paths["/w.pt"].body)}'
        return self.write_set(f"[encoder.files.visual]\n{keys}")

    def hub_set(self, declared: str = "") -> str:
        return self.write_set(
            f"""
            [encoder.files.text]
            hub = "owner/repo"
            file = "model.safetensors"
            revision = "{COMMIT}"
            bytes = {len(BODY)}
            {declared}
            [encoder.files.vocabulary]
            hub = "owner/repo"
            file = "tokenizer.json"
            bytes = {len(SMALL)}
            """
        )

    def files(self, name: str) -> list[Path]:
        return sorted(path for path in self.folder.rglob(name) if path.is_file())


@pytest.fixture
def site() -> Iterator[FileServer]:
    """A server with a plain file, and a hub's repository."""
    with serving() as server:
        server.paths["/w.pt"] = Served(BODY, headers={"ETag": '"v1"'})
        # As the hub answers: a large file is redirected to another host, its hash and size told here.
        server.paths[LARGE_PATH] = Served(
            redirect=f"{server.url.replace('127.0.0.1', 'localhost')}/cdn/blob",
            headers={
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{sha(BODY)}"',
                "X-Linked-Size": str(len(BODY)),
                "ETag": '"not this one"',
            },
        )
        server.paths["/cdn/blob"] = Served(BODY)
        server.paths[SMALL_PATH] = Served(
            SMALL, headers={"X-Repo-Commit": COMMIT, "ETag": f'"{git_blob(SMALL)}"'}
        )
        yield server


@pytest.fixture
def machine(tmp_path: Path, site: FileServer) -> Machine:
    """A machine whose hub is the server."""
    return Machine(tmp_path, site)


def test_list_shows_every_set(machine: Machine) -> None:
    ran = machine.run("list")
    assert (ran.returncode, ran.stderr) == (0, "")
    rows = {line.split("\t")[0]: line.split("\t") for line in ran.stdout.splitlines()}
    assert sorted(rows) == model_set_names()
    assert rows["full"][1:3] == ["9.86 GB", "missing"]
    assert "research use only" in rows["full"][4]
    listed = json.loads(machine.run("list", "--json").stdout)
    assert [row["name"] for row in listed] == model_set_names()
    assert listed[0]["bytes"] == sum(file.bytes or 0 for file in load_model_set(listed[0]["name"]).files)


def test_list_is_a_table_on_a_terminal() -> None:
    lines = on_a_terminal("models", "list").decode().splitlines()
    assert lines[0].split() == ["name", "size", "files", "description"]
    assert {line.split(" ")[0] for line in lines[1:]} == {"", *model_set_names()}
    assert all(len(line) <= 100 and "\t" not in line for line in lines)
    assert any("research use only" in line for line in lines)


def test_long_list_shows_all_that_is_known(machine: Machine) -> None:
    ran = machine.run("list", "--long")
    assert (ran.returncode, ran.stderr) == (0, "")
    rows = [line.split("\t") for line in ran.stdout.splitlines()]
    assert list(dict.fromkeys(name for name, _, _ in rows)) == model_set_names()
    found = {(name, key): value for name, key, value in rows}
    assert found["open-lite", "commercial use"] == "permitted"
    assert found["full", "commercial use"] == "not permitted"
    assert found["open", "languages"].startswith("109 languages")
    assert found["open", "size"] == "11.09 GB, missing"
    assert found["tiny", "memory"] == "about 1.00 GB"
    licences = [value for name, key, value in rows if (name, key) == ("open", "licence")]
    assert licences == [f"{part.name}: {part.licence}" for part in load_model_set("open").parts]
    listed = {row["name"]: row for row in json.loads(machine.run("list", "--json").stdout)}
    abilities = load_model_set("open-lite").abilities
    assert listed["open-lite"]["languages"] == abilities.languages
    assert listed["open-lite"]["memory_mb"] == abilities.memory_mb
    assert listed["open-lite"]["measured"] == abilities.measured
    assert (listed["open-lite"]["commercial_use"], listed["lite"]["commercial_use"]) == (True, False)


def test_long_list_on_a_terminal() -> None:
    lines = on_a_terminal("models", "list", "--long").decode().splitlines()
    assert [line for line in lines if not line.startswith(" ")] == model_set_names()
    assert all(len(line) <= 100 and "\t" not in line for line in lines)
    assert sum(line.split()[0] == "measured" for line in lines) == len(model_set_names())


def test_path_prints_where_files_should_lie_and_fails(machine: Machine) -> None:
    ran = machine.run("path", "full")
    assert ran.returncode == 2
    assert [line.split("\t")[0] for line in ran.stdout.splitlines()] == [
        file.label for file in load_model_set("full").files
    ]
    assert ran.stderr.count("\n") == 1
    assert "matir models pull full" in ran.stderr


def test_unknown_and_wrong_sets_are_one_line(machine: Machine) -> None:
    unknown = machine.run("pull", "nope")
    assert (unknown.returncode, unknown.stdout, unknown.stderr.count("\n")) == (2, "", 1)
    assert "full" in unknown.stderr
    (machine.folder / "mine.toml").write_text("name = 1")
    wrong = machine.run("verify", "mine.toml")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)


def test_pull_path_verify(machine: Machine, site: FileServer) -> None:
    name = machine.url_set(site)
    ran = machine.run("pull", name)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "licence of e" in ran.stderr
    assert "\r" not in ran.stderr, "no bar where there is no terminal"
    path = machine.run("path", name)
    assert path.returncode == 0
    places = dict(line.split("\t") for line in path.stdout.splitlines())
    assert Path(places["encoder.visual"]).read_bytes() == BODY
    assert places["encoder.visual"].startswith(str(machine.folder / "data"))
    verified = machine.run("verify", name)
    assert verified.returncode == 0
    assert [line.split("\t")[0] for line in verified.stdout.splitlines()] == ["ok", "ok"]
    Path(places["encoder.visual"]).write_bytes(bytes(reversed(BODY)))
    Path(places["proposer.checkpoint"]).unlink()
    spoilt = machine.run("verify", name)
    assert spoilt.returncode == 2
    assert [line.split("\t")[:2] for line in spoilt.stdout.splitlines()] == [
        ["missing", "proposer.checkpoint"],
        ["changed", "encoder.visual"],
    ]
    assert spoilt.stderr.count("\n") == 1


def test_verify_names_all_that_is_missing(machine: Machine, site: FileServer) -> None:
    name = machine.url_set(site)
    (machine.folder / "p.bin").unlink()
    ran = machine.run("verify", name)
    assert ran.returncode == 2
    assert "p.bin" in ran.stderr
    assert "w.pt" in ran.stderr


def test_note_of_the_set_is_shown(machine: Machine) -> None:
    name = machine.write_set('[encoder.files.visual]\npath = "p.bin"', note="for the drawn world only")
    assert "for the drawn world only" in machine.run("pull", name).stderr


def test_models_folder_moves_everything(machine: Machine) -> None:
    name = machine.hub_set()
    ran = machine.run("pull", name, MATIR_MODELS=str(machine.folder / "disk"))
    assert ran.returncode == 0, ran.stderr
    places = machine.run("path", name, MATIR_MODELS=str(machine.folder / "disk")).stdout
    assert places.count(str(machine.folder / "disk")) == 2
    assert not (machine.folder / "hf" / "hub").exists()


def test_full_disk_is_one_line_and_leaves_what_came(machine: Machine, site: FileServer) -> None:
    name = machine.url_set(site)
    ran = machine.run("pull", name, limit=600_000)
    assert ran.returncode == 2
    last = ran.stderr.splitlines()[-1]
    assert "no room in" in last
    assert f"{len(BODY)} bytes needed" in last
    assert "Traceback" not in ran.stderr
    assert machine.files("w.pt") == []
    assert [path.stat().st_size for path in machine.files("w.pt.part")] == [600_000]
    assert machine.run("pull", name).returncode == 0
    assert site.gets()[-1].headers["range"] == "bytes=600000-"
    assert machine.files("w.pt")[0].read_bytes() == BODY


def test_interrupted_pull_goes_on_where_it_stopped(machine: Machine, site: FileServer) -> None:
    # Half of it is more than the sockets hold, so when that is sent some of it has been written.
    served = site.paths["/w.pt"] = Served(bytes(64 << 20), headers={"ETag": '"v1"'}, hold=threading.Event())
    name = machine.url_set(site)
    process = subprocess.Popen(
        machine.command("pull", name),
        env=machine.environment,
        cwd=machine.folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert served.halfway.wait(30)
    process.send_signal(signal.SIGINT)
    talk = process.communicate(timeout=30)[1]
    assert served.hold is not None
    served.hold.set()
    served.hold = None
    assert process.returncode == 130
    assert "Traceback" not in talk
    assert machine.files("w.pt") == []
    assert len(machine.files("w.pt.part")) == 1
    assert machine.run("pull", name).returncode == 0
    assert machine.files("w.pt")[0].read_bytes() == served.body
    assert "range" in site.gets()[-1].headers


def test_hub_files_lie_in_the_hubs_cache(machine: Machine, site: FileServer) -> None:
    name = machine.hub_set(f'sha256 = "{sha(BODY)}"')
    ran = machine.run("pull", name, HF_TOKEN=BEARER)
    assert ran.returncode == 0, ran.stderr
    cache = machine.folder / "hf" / "hub" / "models--owner--repo"
    assert (cache / "snapshots" / COMMIT / "model.safetensors").read_bytes() == BODY
    assert (cache / "snapshots" / COMMIT / "tokenizer.json").read_bytes() == SMALL
    assert (cache / "blobs" / sha(BODY)).is_file()
    assert sorted(path.name for path in (cache / "blobs").iterdir()) == sorted([sha(BODY), git_blob(SMALL)])
    asked = {request.path: request.headers for request in site.gets()}
    assert asked[LARGE_PATH]["authorization"] == f"Bearer {BEARER}"
    assert "authorization" not in asked["/cdn/blob"], "a token is for the hub alone"
    before = len(site.requests)
    assert machine.run("verify", name).returncode == 0
    assert machine.run("pull", name).returncode == 0
    assert len(site.requests) == before, "what is here needs no network"


def test_hub_files_fetched_by_another_tool_are_used(machine: Machine, site: FileServer) -> None:
    name = machine.hub_set()
    assert machine.run("pull", name).returncode == 0
    for record in machine.files("*.json"):
        if record.parent.name == ".record":
            record.unlink()
    site.paths.clear()
    places = machine.run("path", name)
    assert places.returncode == 0
    assert "snapshots" in places.stdout


def test_cut_hub_file_is_resumed(machine: Machine, site: FileServer) -> None:
    name = machine.hub_set()
    site.paths["/cdn/blob"].cut_after = 400_000
    ran = machine.run("pull", name)
    assert ran.returncode == 2
    assert "cut after 400000" in ran.stderr
    assert machine.files("model.safetensors") == []
    site.paths["/cdn/blob"].cut_after = None
    assert machine.run("pull", name).returncode == 0
    assert site.gets()[-2].headers["range"] == "bytes=400000-"
    assert machine.files("model.safetensors")[0].read_bytes() == BODY


def test_hub_file_of_another_hash_is_not_kept(machine: Machine, site: FileServer) -> None:
    site.paths["/cdn/blob"].body = bytes(reversed(BODY))
    ran = machine.run("pull", machine.hub_set())
    assert ran.returncode == 2
    assert f"not {sha(BODY)}" in ran.stderr
    assert machine.files("model.safetensors") == []
    declared = machine.run("pull", machine.hub_set(f'sha256 = "{sha(b"other")}"'))
    assert f"the model set says {sha(b'other')}" in declared.stderr
    assert machine.files("model.safetensors") == []


def test_damaged_hub_file_is_fetched_again(machine: Machine) -> None:
    name = machine.hub_set()
    machine.run("pull", name)
    for file in ("model.safetensors", "tokenizer.json"):
        machine.files(file)[0].write_bytes(b"damaged")
    assert machine.run("pull", name).returncode == 0
    assert machine.files("model.safetensors")[0].read_bytes() == BODY
    assert machine.files("tokenizer.json")[0].read_bytes() == SMALL


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("EntryNotFound", "the repository has no such file"),
        ("RevisionNotFound", "the repository has no such revision"),
        ("RepoNotFound", "the hub has no such repository"),
        ("GatedRepo", "its licence must be accepted"),
    ],
)
def test_hub_refusals_are_told(machine: Machine, site: FileServer, code: str, reason: str) -> None:
    status = 403 if code == "GatedRepo" else 404
    site.paths[LARGE_PATH] = Served(status=status, headers={"X-Error-Code": code})
    ran = machine.run("pull", machine.hub_set())
    assert ran.returncode == 2
    assert reason in ran.stderr.splitlines()[-1]


def test_hub_out_of_reach_or_switched_off(machine: Machine, site: FileServer) -> None:
    name = machine.hub_set()
    offline = machine.run("pull", name, HF_HUB_OFFLINE="1")
    assert offline.returncode == 2
    assert "HF_HUB_OFFLINE is set" in offline.stderr.splitlines()[-1]
    assert site.requests == []
    unreachable = machine.run("pull", name, HF_ENDPOINT="http://127.0.0.1:9")
    assert unreachable.returncode == 2
    assert "could not be fetched" in unreachable.stderr.splitlines()[-1]
    assert machine.run("pull", name).returncode == 0
    assert machine.run("pull", name, HF_HUB_OFFLINE="1").returncode == 0, "all is here"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (345_600_000, "346 MB"),
        (999_900_000, "1.00 GB"),
        (9_864_783_138, "9.86 GB"),
    ],
)
def test_sizes_for_people(count: int, shown: str) -> None:
    assert readable_size(count) == shown
