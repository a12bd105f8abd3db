"""`matir serve`: one process per gallery, which other processes find, ask and end."""

import os
import re
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from matir_cli.server.jobs import MOST_SEARCHES
from matir_cli.server.runtime import RuntimeFiles, find_server
from tests.support.process import MATIR, matir
from tests.support.server import LAST_SECONDS, Server, end_servers, run_server


def test_the_files_of_a_server_are_private_and_go_with_it(gallery: Path, model_set: Path) -> None:
    files = RuntimeFiles.of(gallery)
    with run_server(gallery, model_set) as server:
        assert stat.S_IMODE(files.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(files.socket.parent.stat().st_mode) == 0o700
        assert server.record.pid == server.process.pid
        assert server.record.url == server.url
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server.url)
    assert server.process.wait() == 128 + signal.SIGTERM
    assert not files.socket.exists()
    assert find_server(gallery) is None


def test_a_second_server_says_where_the_first_is(server: Server) -> None:
    done = matir("serve", *server.options)
    assert (done.returncode, done.stdout) == (2, b"")
    said = done.stderr.decode()
    assert f"a server for {server.gallery} runs already: {server.url}, process {server.process.pid}." in said
    assert "matir serve --stop --db " in said


def test_status_and_stop(gallery: Path, model_set: Path) -> None:
    for words in ("--status", "--stop"):
        done = matir("serve", words, "--db", gallery)
        assert (done.returncode, done.stdout) == (1, b"")
        assert f"no server runs for {gallery}" in done.stderr.decode()
    started = matir("serve", "--detach", "--db", gallery, "--models", model_set)
    assert started.returncode == 0, started.stderr
    status = matir("serve", "--status", "--db", gallery)
    assert status.returncode == 0
    assert status.stdout.startswith(started.stdout)
    assert b"  loaded    nothing\n  searches  0 at work, 0 in all\n" in status.stdout
    record = find_server(gallery)
    assert record is not None
    assert matir("serve", "--stop", "--db", gallery).returncode == 0
    # The server holds its lock until it has ended: the next one gets it.
    from filelock import FileLock

    with FileLock(RuntimeFiles.of(gallery).lock):
        assert find_server(gallery) is None
    failed = matir("serve", "--detach", "--db", gallery, "--models", model_set, "--host", "192.0.2.1")
    assert failed.returncode == 2
    assert b"give a --token" in failed.stderr
    failed = matir(
        *("serve", "--detach", "--db", gallery, "--models", model_set, "--host", "192.0.2.1", "--token", "x")
    )
    assert failed.returncode == 2
    assert b"192.0.2.1, port 0 cannot be used" in failed.stderr


def test_servers_that_tests_leave_behind_are_ended(
    gallery: Path, model_set: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The path of a socket has 107 characters at most, which `tmp_path` may exceed.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    assert matir("serve", "--detach", "--db", gallery, "--models", model_set).returncode == 0
    assert find_server(gallery) is not None
    end_servers()
    assert find_server(gallery) is None
    assert matir("serve", "--status", "--db", gallery).returncode == 1


def test_the_queue_is_bounded_and_a_signal_ends_it(gallery: Path, slow_set: Path) -> None:
    with run_server(gallery, slow_set) as server:
        for number in range(MOST_SEARCHES):
            server.post("/api/searches", {"text": f"{number} red houses", "certainty": 1})
        status, headers, content = server.request("POST", "/api/searches", {"text": "one more"})
        assert status == 429
        assert int(headers["Retry-After"]) >= 1
        assert b"16 searches are at work or waiting" in content
        done = matir("find", "red house", "--no-rerank", *server.options)
        assert done.returncode == 0
        said = "matir: the server of this gallery is busy with 16 searches: searching without it\n"
        assert said in done.stderr.decode()
        assert server.status.searches == MOST_SEARCHES
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(LAST_SECONDS) == 130
    assert find_server(gallery) is None


def test_a_runtime_folder_of_others_is_not_used(gallery: Path, model_set: Path, tmp_path: Path) -> None:
    folder = tmp_path / "matir" / "serve"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    done = matir("serve", "--db", gallery, "--models", model_set, XDG_RUNTIME_DIR=str(tmp_path))
    assert done.returncode == 2
    assert f"the runtime folder {folder} can be entered by other users" in done.stderr.decode()


def test_models_are_freed_when_idle_and_loaded_again(gallery: Path, model_set: Path) -> None:
    with run_server(gallery, model_set, "--idle", "0.0001") as server:
        for query in ("red house", "blue car"):
            words = ("find", query, "--candidates", 2, "-n", 1, *server.options)
            assert matir(*words).returncode == 0
            assert server.next_line() == "matir: idle: freed the judge, text encoder"
            assert server.status.loaded == []
        assert server.status.served == 2


def test_two_galleries_have_a_server_each(server: Server, gallery: Path, model_set: Path) -> None:
    with run_server(gallery, model_set) as other:
        assert other.url != server.url
        before = server.status.served
        for each in (server, other):
            assert matir("find", "--no-rerank", "red house", *each.options).returncode == 0
        assert (server.status.served, other.status.served) == (before + 1, 1)


def test_another_file_at_the_path_is_searched_anew(gallery: Path, model_set: Path, tmp_path: Path) -> None:
    with run_server(gallery, model_set) as server:
        copy = tmp_path / "copy.db"
        copy.write_bytes(gallery.read_bytes())
        os.replace(copy, gallery)  # noqa: PTH105 - one step
        before = server.status.served
        assert matir("find", "--no-rerank", "red house", *server.options).returncode == 0
        assert server.status.served == before + 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--host", "0.0.0.0"), "give a --token"),  # noqa: S104
        (("--status", "--stop"), "exclude each other"),
        (("--token", "\x07"), "printable"),
    ],
)
def test_options_that_contradict_each_other(gallery: Path, words: tuple[str, ...], message: str) -> None:
    done = matir("serve", "--db", gallery, *words)
    assert done.returncode == 2
    assert message in done.stderr.decode()


def test_open_opens_the_page_in_the_browser(
    gallery: Path, model_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    os.mkfifo(opened)
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    with run_server(gallery, model_set, "--open", "--token", "s3cret") as server:
        assert opened.read_text() == f"{server.url}\n"
        # Where a server runs, its page is opened.
        monkeypatch.setenv("BROWSER", f"{browser} %s &")
        again = subprocess.Popen([*MATIR, "serve", "--open", *server.options], stdout=subprocess.PIPE)
        assert opened.read_text() == f"{server.url}\n"
        assert again.communicate()[0].decode() == f"{server.url}\n"
        assert again.returncode == 0
