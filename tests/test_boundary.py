import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from matir_cli import errors
from matir_cli.cli.boundary import explain


def leaves(kind: type[errors.MatirError]) -> Iterator[type[errors.MatirError]]:
    below = kind.__subclasses__()
    for one in below:
        yield from leaves(one)
    if not below:
        yield kind


EXAMPLES = {
    "path": Path("/a/b"),
    "files": [Path("/a/b")],
    "known": ["full"],
    "needed": 2,
    "available": 1,
    "found": 3,
}


@pytest.mark.parametrize("kind", sorted(leaves(errors.MatirError), key=lambda kind: kind.__name__))
def test_every_error_has_a_line_of_its_own_and_a_remedy(kind: type[errors.MatirError]) -> None:
    parameters = inspect.signature(kind.__init__).parameters
    facts = {name: EXAMPLES.get(name, name) for name in parameters if name not in ("self", "args", "kwargs")}
    problem, remedy = explain(kind(**facts))  # type: ignore[arg-type]
    assert kind.__name__ not in problem  # that would be the fallback
    assert problem.endswith(".")
    assert remedy
    assert "\n" not in problem + remedy


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"── (\w+)", errors.__doc__ or "")
    known = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert sorted(drawn) == sorted(kind.__name__ for kind in known if kind is not errors.MatirError)


def run(body: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """A process whose command does `body`, through the real boundary."""
    head = "import click\nfrom matir_cli.cli import boundary\n@click.command()\ndef command():\n"
    script = f"{head}    {body}\nboundary.run(command)"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, env={"PATH": "/bin", **variables}
    )


def test_an_error_of_ours_is_one_line_and_harmless() -> None:
    done = run("from matir_cli.errors import GalleryMissing; raise GalleryMissing('\\x1b[31m\\nx')")
    assert done.returncode == 2
    assert done.stderr == b"matir: there is no gallery at \\x1b[31m\\nx. Make one with: matir add FOLDER\n"


def test_an_error_that_should_not_happen_shows_its_traceback_only_when_asked() -> None:
    done = run("1 / 0")
    assert done.returncode == 2
    assert b"ZeroDivisionError" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Traceback" in run("1 / 0", MATIR_DEBUG="1").stderr


def test_ctrl_c_is_130() -> None:
    assert run("raise KeyboardInterrupt").returncode == 130


def test_wrong_usage_is_2_and_shows_how() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "matir_cli", "find", "--nonsense"], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"No such option" in done.stderr
