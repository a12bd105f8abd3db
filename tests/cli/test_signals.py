"""Ctrl-C, SIGTERM and SIGHUP at any moment: an exit code, and no traceback."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from matir_cli.cli import signals
from tests.support.process import MATIR

ROOT = Path(__file__).parents[2]


def at_import(number: int, sign: signal.Signals, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run `matir` in a process that sends itself a signal when the module of this number is looked for.

    Counting begins with the first module that the entry point imports; 0 sends none and prints the count.
    """
    script = (
        "import os, runpy, sys\n"
        "class AtImport:\n"
        "    count = 0\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        cls.count += bool(cls.count) or name == 'matir_cli.cli.signals'\n"
        f"        if cls.count == {number} and {number}:\n"
        f"            os.kill(os.getpid(), {int(sign)})\n"
        "def leave(code, exit=os._exit):\n"
        f"    if not {number}: os.write(2, str(AtImport.count).encode())\n"
        "    exit(code)\n"
        "os._exit = leave\n"
        "sys.meta_path.insert(0, AtImport)\n"
        f"sys.argv = {['matir', *words]!r}\n"
        "runpy.run_module('matir_cli', run_name='__main__', alter_sys=True)\n"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)


@pytest.mark.parametrize("words", [("models", "list"), ("help",)])
def test_a_signal_while_modules_are_imported_ends_without_a_word(words: tuple[str, ...]) -> None:
    modules = int(at_import(0, signal.SIGINT, *words).stderr)
    assert modules > 50
    draw = random.Random(words[0])  # noqa: S311 - the same moments in every run
    numbers = [1, 2, 3, *sorted(draw.sample(range(4, modules), 7))]
    for number in numbers:
        # The first three modules are those that set the handlers, until when only Ctrl-C can be caught.
        sign = draw.choice(signals.SIGNALS) if number > 3 else signal.SIGINT
        done = at_import(number, sign, *words)
        assert (done.returncode, done.stderr) == (128 + sign, b""), (number, sign, done.stderr.decode())


def test_a_signal_at_the_end_of_a_command_changes_at_most_its_exit_code() -> None:
    for sign in signals.SIGNALS:
        with subprocess.Popen(
            [*MATIR, "models", "path", "tiny"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline().startswith(b"proposer")
            process.send_signal(sign)
            assert process.stderr.read() == b""
        assert process.returncode in (0, 128 + sign)


def in_a_command(body: str) -> subprocess.CompletedProcess[bytes]:
    """Run a process whose command executes `body`, through the real boundary."""
    head = "import click, os, signal\nfrom matir_cli.cli import boundary\n@click.command()\ndef command():\n"
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    script = f"{head}{lines}\nboundary.run(command)"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)


SEND = "os.kill(os.getpid(), signal.{})"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(
    "body",
    [
        "{send}",
        "try:\n    {send}\nexcept BaseException as error:\n    raise ImportError('of a library') from error",
        "from matir_cli.errors import QueryEmpty\ntry:\n    {send}\nfinally:\n    raise QueryEmpty",
        "class Late:\n    def __del__(self):\n        {send}\nlate = Late()\ndel late\nwhile True: pass",
    ],
    ids=["plain", "turned into an error", "during an error", "in a destructor"],
)
def test_a_signal_in_a_command_is_128_and_its_number(body: str, name: str) -> None:
    done = in_a_command(body.replace("{send}", SEND.format(name)))
    assert (done.returncode, done.stderr) == (128 + signal.Signals[name], b"")


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    script = f"{sys.executable} -m matir_cli models path tiny"
    done = subprocess.run(
        ["sh", "-c", f"trap '' HUP TERM; {script} & wait $!"], capture_output=True, check=False
    )
    assert done.returncode == 0
    body = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    body += "from matir_cli.cli import signals\nsignals.raise_in_command()\n"
    body += "signal.raise_signal(signal.SIGHUP)\nprint('here')"
    assert subprocess.run([sys.executable, "-c", body], capture_output=True, check=True).stdout == b"here\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_no_temporary_file_stays(tmp_path: Path, name: str) -> None:
    target = tmp_path / "result.txt"
    write = "from pathlib import Path\nfrom matir_cli.atomic_write import atomic_write\n"
    write += f"path = Path({str(target)!r})\n"
    body = f"{write}with atomic_write(path, force=True) as temporary:\n    temporary.write_text('half')\n    "
    done = in_a_command(f"{body}{SEND.format(name)}")
    assert done.stderr == b""
    left = [path.name for path in tmp_path.iterdir()]
    if name == "SIGKILL":
        assert done.returncode == -signal.SIGKILL
        assert len(left) == 1
    else:
        assert (done.returncode, left) == (128 + signal.Signals[name], [])
    done = in_a_command(f"{write}with atomic_write(path, force=True) as temporary:\n    temporary.touch()")
    assert done.returncode == 0
    assert [*tmp_path.iterdir()] == [target]


def test_the_first_word_of_the_program_is_not_a_heavy_one() -> None:
    script = "import sys; import matir_cli.cli.main, matir_cli.cli.signals; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, check=True, cwd=ROOT)
    assert not {b"click", b"typing", b"numpy", b"PIL", b"apsw", b"re"} & set(loaded.stdout.split())
