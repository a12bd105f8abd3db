"""The process that decodes: its limits, its ends, and that this process survives them."""

import os
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from matir_cli.errors import DecoderUnavailable, PhotoUnreadable
from matir_cli.photos.decode import decode_full_size
from matir_cli.photos.decoder_process import DecoderProcess
from tests.photos.crafted import many_scans
from tests.support.pictures import scene


@pytest.fixture
def decoder() -> Iterator[DecoderProcess]:
    with closing(DecoderProcess()) as made:
        yield made


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    scene("red").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A file that never ends: whoever reads it waits."""
    os.mkfifo(tmp_path / "pipe.jpg")
    return tmp_path / "pipe.jpg"


def started(decoder: DecoderProcess) -> int:
    """Start the worker and return its process id."""
    decoder.start()
    assert decoder.pid is not None
    return decoder.pid


def reason(decoder: DecoderProcess, path: Path) -> str:
    with pytest.raises(PhotoUnreadable) as caught:
        decode_full_size(path, decoder)
    assert caught.value.path == path
    return caught.value.reason


def test_one_process_decodes_many_files(decoder: DecoderProcess, photo: Path) -> None:
    pid = started(decoder)
    for _ in range(3):
        assert np.array_equal(np.asarray(decode_full_size(photo, decoder)), np.asarray(scene("red")))
    assert decoder.pid == pid
    assert os.getpgid(pid) != os.getpgid(0)  # Ctrl-C on a terminal does not reach it
    decoder.close()
    with pytest.raises(ChildProcessError):  # no zombie is left
        os.waitpid(pid, os.WNOHANG)


def test_a_decoder_that_hangs_is_ended(decoder: DecoderProcess, photo: Path, pipe: Path) -> None:
    decode_full_size(photo, decoder)
    before = decoder.pid
    decoder.seconds = 0.1
    assert reason(decoder, pipe) == "takes more than 0.1 s to decode"
    decoder.seconds = 60
    assert decode_full_size(photo, decoder).size == (120, 90)
    assert decoder.pid != before


def test_native_code_is_ended_in_time(decoder: DecoderProcess, photo: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.jpg"
    slow.write_bytes(many_scans(scene("red", size=(1600, 1200)), 450))
    decode_full_size(photo, decoder)
    decoder.seconds = 0.2
    assert reason(decoder, slow) == "takes more than 0.2 s to decode"


def test_a_decoder_that_crashes_is_replaced(decoder: DecoderProcess, photo: Path, pipe: Path) -> None:
    pid = started(decoder)

    def crash() -> None:
        with pipe.open("wb"):  # opened once the decoder reads
            os.kill(pid, signal.SIGSEGV)

    thread = threading.Thread(target=crash)
    thread.start()
    assert reason(decoder, pipe) == "its decoder crashed (SIGSEGV)"
    thread.join()
    assert decode_full_size(photo, decoder).size == (120, 90)


def test_a_worker_that_was_killed_between_files_is_replaced(decoder: DecoderProcess, photo: Path) -> None:
    pid = started(decoder)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert decode_full_size(photo, decoder).size == (120, 90)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of the address space is set on Linux only")
def test_memory_is_limited(photo: Path, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.gif"
    head = b"GIF89a" + struct.pack("<HH", 20_000, 20_000) + b"\x80\0\0" + bytes(6)
    bomb.write_bytes(head + b"," + struct.pack("<HHHH", 0, 0, 20_000, 20_000) + b"\0\2\2\x44\1\0;")
    with closing(DecoderProcess(memory=400 << 20)) as decoder:
        assert reason(decoder, bomb) == "takes more memory to decode than is allowed"
        assert decode_full_size(photo, decoder).size == (120, 90)


_PARENT = """
import sys
from pathlib import Path
from matir_cli.photos.decode import decode_full_size
try:
    print(decode_full_size(Path(sys.argv[1])).size)
except KeyboardInterrupt:
    print("interrupted")
"""


_LEAVING = """
import sys, threading
from pathlib import Path
from matir_cli.photos.decode import decode_full_size
threading.Thread(target=decode_full_size, args=(Path(sys.argv[1]),), daemon=True).start()
writing = open(sys.argv[1], "wb")  # waits until the decoder reads
"""


def test_the_end_of_the_program_does_not_wait_for_a_decoder(pipe: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _LEAVING, str(pipe)], timeout=30, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_worker_ends_with_its_parent(pipe: Path, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT, str(pipe)], stdout=subprocess.PIPE) as parent:
        writing = os.open(pipe, os.O_WRONLY)  # waits until the decoder reads
        parent.send_signal(number)
        output, _ = parent.communicate()
    assert output == (b"interrupted\n" if number == signal.SIGINT else b"")
    reader = select.poll()
    reader.register(writing, 0)
    assert [event for _, event in reader.poll(20_000)] == [select.POLLERR]  # nobody reads any more
    os.close(writing)


def test_the_current_folder_holds_no_modules(photo: Path, tmp_path: Path) -> None:
    for name in ("numpy", "PIL", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('read from the folder of photos')")
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PARENT, str(photo)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("(120, 90)\n", "")


_FORKED = """
import os, sys
from pathlib import Path
from matir_cli.photos.decode import decode_full_size
size = decode_full_size(Path(sys.argv[1])).size
child = os.fork()
assert decode_full_size(Path(sys.argv[1])).size == size
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert decode_full_size(Path(sys.argv[1])).size == size
"""


def test_a_forked_process_has_a_worker_of_its_own(photo: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _FORKED, str(photo)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_that_does_not_start_is_an_error(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(DecoderUnavailable, match="no such file"):
        decode_full_size(photo, DecoderProcess())
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho ImportError: no PIL >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(DecoderUnavailable, match=r"ended \(exit code 3\): ImportError: no PIL"):
        decode_full_size(photo, DecoderProcess())
