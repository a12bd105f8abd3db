"""`matir help` as a process: topics, pages and the help of commands."""

from pathlib import Path

import pytest

from matir_cli.manual import read_page, topics
from tests.support.process import matir, on_full_terminal


def test_without_a_name_every_topic_is_listed_with_its_description() -> None:
    done = matir("help")
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    for topic in topics():
        assert any(line.split() == [topic, *read_page(topic).description.split()] for line in lines), topic
    assert "matir COMMAND --help" in done.stdout.decode()
    assert all(len(line) <= 120 for line in lines)


def test_a_topic_shows_its_page_as_it_is() -> None:
    done = matir("help", "searching")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == read_page("searching").text


def test_marks_of_the_generator_are_not_shown() -> None:
    page = read_page("architecture").text
    shown = matir("help", "architecture").stdout.decode()
    assert "<!-- tree -->\n" in page
    assert "<!--" not in shown
    assert "```text\nmatir_cli/" in shown


@pytest.mark.parametrize("words", [["find"], ["models", "pull"], ["models"], ["help"]])
def test_a_command_shows_its_help(words: list[str]) -> None:
    done = matir("help", *words)
    assert done.returncode == 0
    assert done.stdout == matir(*words, "--help").stdout
    assert done.stdout.startswith(f"Usage: matir {' '.join(words)} ".encode())


def test_a_name_of_both_is_a_command_unless_the_page_is_asked_for() -> None:
    assert b"matir help models --page" in matir("help", "models").stderr
    page = matir("help", "models", "--page")
    assert (page.returncode, page.stdout.decode()) == (0, read_page("models").text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serching"], "No such topic 'serching'. Did you mean searching?"),
        (["exprot"], "No such topic 'exprot'. Did you mean export?"),
        (["models", "pul"], "No such command 'models pul'. Did you mean models pull?"),
        (["xyzzy"], "No such topic 'xyzzy'.\n"),
        (["find", "more"], "No such topic 'find more'."),
        (["find", "--page"], "No such topic 'find'."),
    ],
)
def test_an_unknown_name_is_told_what_may_be_meant(words: list[str], message: str) -> None:
    done = matir("help", *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert message in done.stderr.decode()


def test_a_terminal_gets_a_pager(tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\nexec sed 's/^/paged: /'\n")
    pager.chmod(0o755)
    shown = on_full_terminal(["help", "quickstart"], PAGER=str(pager)).decode().splitlines()
    text = read_page("quickstart").text.splitlines()
    assert shown == [f"paged: {line}" for line in text]
    assert b"paged: " not in matir("help", "quickstart", PAGER=str(pager)).stdout
