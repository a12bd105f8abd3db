"""The process of `matir mcp`: its streams, its end, cancelled calls, and the folder that it may write to."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp_types import TextContent

from matir_cli.errors import OutputError
from matir_cli.mcp.folder import WriteFolder
from matir_cli.mcp.process import LONGEST_REQUEST
from matir_cli.server.jobs import MOST_SEARCHES
from tests.support.agent import Agent, Messages, run_agent
from tests.support.process import MATIR, PHOTOS, matir
from tests.support.server import run_server
from tests.support.verdicts import count_verdicts

INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


class Wire:
    """A `matir mcp` to which lines are sent by hand."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def send(self, line: bytes) -> None:
        """Send a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def request(self, number: int, method: str, params: dict[str, Any]) -> None:
        """Send a request."""
        self.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode())

    def answer(self) -> dict[str, Any]:
        """The next message."""
        assert self.process.stdout is not None
        message: dict[str, Any] = json.loads(self.process.stdout.readline())
        return message

    def begin(self) -> None:
        """Do the handshake of older versions."""
        self.request(0, "initialize", INITIALIZE)
        assert self.answer()["result"]["serverInfo"]["name"] == "matir"
        self.send(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}')


@contextmanager
def run_wire(gallery: Path, models: Path) -> Iterator[Wire]:
    """Run `matir mcp` with pipes."""
    command = [*MATIR, "mcp", "--db", str(gallery), "--models", str(models)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield Wire(process)
        finally:
            process.kill()


def test_nothing_but_messages_is_on_standard_output(searched: Path, model_set: Path) -> None:
    with run_wire(searched, model_set) as wire:
        wire.begin()
        wire.send(b"no message")
        wire.send(b"\xff\xfe[[[[")
        wire.send(b'{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": ' + b"x" * LONGEST_REQUEST)
        wire.request(
            1, "tools/call", {"name": "search_photos", "arguments": {"text": "red house", "limit": 2}}
        )
        answer = wire.answer()
        while "result" not in answer:
            answer = wire.answer()
        assert answer["id"] == 1
        assert answer["result"]["structuredContent"]["total"] == 2
        output, errors = wire.process.communicate()  # which closes its input
        assert output == b""
        assert wire.process.returncode == 0
        said = errors.decode().splitlines()
        assert said[-1] == "matir: a request was too long, and left out"
        assert not any("Traceback" in line for line in said)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it(gallery: Path, slow_set: Path, number: int) -> None:
    with run_wire(gallery, slow_set) as wire:
        wire.begin()
        judging = {"text": f"red house {number}", "limit": 1, "candidates": PHOTOS}
        meta = {"progressToken": 1}
        wire.request(1, "tools/call", {"name": "search_photos", "arguments": judging, "_meta": meta})
        while wire.answer()["params"]["message"] != "judging":
            pass
        wire.process.send_signal(number)
        _, errors = wire.process.communicate()
        assert wire.process.returncode == 128 + number
        assert b"Traceback" not in errors


def test_the_end_of_input_ends_a_search(gallery: Path, slow_set: Path) -> None:
    with run_wire(gallery, slow_set) as wire:
        wire.begin()
        wire.request(1, "tools/call", {"name": "search_photos", "arguments": {"text": "a purple dog"}})
        _, errors = wire.process.communicate()
        assert wire.process.returncode == 0
        assert b"Traceback" not in errors
    assert count_verdicts(gallery, "a purple dog") < PHOTOS


def cancel_when_judging(agent: Agent, text: str) -> None:
    """Start a judged search, and cancel it at the first verdict."""

    async def run() -> None:
        with anyio.CancelScope() as scope:

            def observe(message: str | None) -> None:
                if message == "judging":
                    scope.cancel()

            arguments = {"text": text, "limit": PHOTOS, "candidates": PHOTOS}
            follow = Messages(observe)
            await agent.client.call_tool("search_photos", arguments, progress_callback=follow)
        assert scope.cancelled_caught

    agent.portal.call(run)


def test_a_cancelled_search_ends_at_the_next_photo(gallery: Path, slow_set: Path) -> None:
    with run_agent(gallery, slow_set) as agent:
        cancel_when_judging(agent, "a blue star")
        # The next search has the judge once that photo is done.
        assert agent.call("search_photos", text="a blue ring", candidates=1, limit=1)["judged"] == 1
        assert 1 <= count_verdicts(gallery, "a blue star") < PHOTOS
    with run_server(gallery, slow_set) as server, run_agent(gallery, slow_set) as agent:
        cancel_when_judging(agent, "a green star")
        assert agent.call("search_photos", text="a green ring", candidates=1, limit=1)["judged"] == 1
        assert server.status.served == 2
        assert server.status.searches == 0
        assert 1 <= count_verdicts(gallery, "a green star") < PHOTOS


def test_the_queue_is_bounded(gallery: Path, slow_set: Path) -> None:
    with run_agent(gallery, slow_set) as agent:
        refused = []

        async def search(number: int, scope: anyio.CancelScope) -> None:
            arguments = {"text": f"{number} red houses", "candidates": PHOTOS}
            result = await agent.client.call_tool("search_photos", arguments)
            if result.is_error:
                refused.append(result.content)
                scope.cancel()

        async def run() -> None:
            async with anyio.create_task_group() as tasks:
                for number in range(MOST_SEARCHES + 1):
                    tasks.start_soon(search, number, tasks.cancel_scope)

        agent.portal.call(run)
        [[content]] = refused
        assert isinstance(content, TextContent)
        assert content.text == "16 searches are at work; wait for one, or cancel one"
        # Those that were cancelled give way.
        wanted = {"text": "a blue ring", "candidates": 1, "limit": 1}
        while (last := agent.result("search_photos", wanted)).is_error:
            pass  # their threads have not all ended
        assert last.structured_content["judged"] == 1


def test_a_search_goes_on_without_a_server_that_was_killed(gallery: Path, slow_set: Path) -> None:
    with run_server(gallery, slow_set) as server, run_agent(gallery, slow_set) as agent:
        killed = False
        said = []

        def observe(message: str | None) -> None:
            nonlocal killed
            said.append(message)
            if message == "judging" and not killed:
                killed = True
                server.process.kill()

        async def run() -> Any:
            arguments = {"text": "a white star", "limit": 3, "candidates": 4}
            follow = Messages(observe)
            return await agent.client.call_tool("search_photos", arguments, progress_callback=follow)

        result = agent.portal.call(run)
        assert not result.is_error
        assert result.structured_content["total"] == 3
        assert "the server of this gallery went away: searching without it" in said


def test_models_are_freed_when_idle(searched: Path, model_set: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    os.mkfifo(said)
    reader = os.open(said, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    with (
        said.open("w") as errors,
        os.fdopen(reader) as lines,
        run_agent(searched, model_set, "--idle", "0.0001", errors=errors) as agent,
    ):
        for text in ("red house", "blue car"):
            agent.call("search_photos", text=text, judge=False)
            while "idle: freed the text encoder" not in lines.readline():
                pass  # a note about the model set
            assert agent.call("gallery_facts")["photos"] == PHOTOS


def test_without_the_package_one_line_says_what_to_install(searched: Path, tmp_path: Path) -> None:
    (tmp_path / "mcp_types.py").write_text("raise ImportError('not installed')")
    done = matir("mcp", "--db", searched, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, b"")
    assert (
        done.stderr.decode()
        .strip()
        .endswith("mcp needs a package that is not installed. pip install 'matir-cli[mcp]'")
    )


def test_what_cannot_be_opened_is_named_at_the_start(searched: Path, tmp_path: Path) -> None:
    missing = tmp_path / "none.db"
    done = matir("mcp", "--db", missing)
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"matir add FOLDER --db {missing}" in done.stderr.decode()
    (tmp_path / "file").write_bytes(b"")
    done = matir("mcp", "--db", searched, "--write-to", tmp_path / "file" / "folder")
    assert (done.returncode, done.stdout) == (2, b"")
    assert "cannot be written" in done.stderr.decode()


def test_links_in_the_folder_do_not_lead_out(tmp_path: Path) -> None:
    source = tmp_path / "mask.png"
    source.write_bytes(b"mask")
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = WriteFolder(tmp_path / "in")
    with folder.batch("masks") as batch:
        (batch.path / source.name).symlink_to(outside / "stolen")
        with pytest.raises(OutputError, match="exists"):
            batch.take(source)
        (batch.path / source.name).unlink()
        # A link in the place of the new folder, or of the folder itself, changes nothing.
        batch.path.rename(tmp_path / "in" / "renamed")
        batch.path.symlink_to(outside)
        batch.take(source)
    assert (tmp_path / "in" / "renamed" / source.name).read_bytes() == b"mask"
    (tmp_path / "in").rename(tmp_path / "moved")
    (tmp_path / "in").symlink_to(outside)
    with folder.batch("masks") as batch:
        batch.take(source)
    assert (tmp_path / "moved" / batch.path.name / source.name).read_bytes() == b"mask"
    assert [*outside.iterdir()] == []


def test_an_empty_batch_leaves_nothing(tmp_path: Path) -> None:
    folder = WriteFolder(tmp_path / "in")
    with folder.batch("masks") as batch, pytest.raises(OutputError, match=r"No such file"):
        batch.take(tmp_path / "missing.png")
    assert [*(tmp_path / "in").iterdir()] == []


def test_other_commands_do_not_import_the_package() -> None:
    code = (
        "import sys, matir_cli.cli.commands.mcp; "
        "print([name for name in sys.modules if name.split('.')[0] in ('mcp', 'mcp_types')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "[]\n"
