"""The documentation cannot drift: commands, files, links and examples in it are checked."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import click
import pytest
import sqlite_vec

from matir_cli.cli.group import matir
from matir_cli.manual import read_page, topics
from tests.manual.generate import help_text, source_tree, walk_commands
from tests.support.process import WARNINGS, Indexed

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "matir_cli" / "manual"
README = ROOT / "README.md"
CONTRIBUTING = ROOT / ".github" / "CONTRIBUTING.md"
PAGES = sorted(MANUAL.glob("*.md"))
DOCUMENTS = [README, *sorted((ROOT / ".github").glob("*.md")), *PAGES]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def without_code(path: Path) -> str:
    return re.sub(
        r"^```.*?^```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


# Generated parts


def test_the_generated_pages_are_up_to_date() -> None:
    # In a process of its own: commands that other tests have run here may have changed their options.
    words = [sys.executable, "-m", "tests.manual.generate", "--check"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run: make docs\n{done.stdout}{done.stderr}"


def test_every_command_is_in_the_page_of_commands() -> None:
    page = (MANUAL / "commands.md").read_text(encoding="utf-8")
    names = [name for name, _ in walk_commands(matir, "matir")]
    assert {"matir", "matir find", "matir models pull", "matir eval coco", "matir help"} <= {*names}
    for name in names:
        assert f"\n## {name}\n\n```console\n$ {name} --help\nUsage: {name} [OPTIONS]" in page


def test_every_command_shows_examples() -> None:
    without = [
        name for name, command in walk_commands(matir, "matir") if "Examples:" not in help_text(name, command)
    ]
    assert without == []


def test_the_source_tree_is_the_one_there_is() -> None:
    page = (MANUAL / "architecture.md").read_text(encoding="utf-8")
    tree = page.split("<!-- tree -->")[1].split("<!-- end of tree -->")[0]
    assert source_tree() in tree
    named, folders = set[str](), list[str]()
    for line in tree.strip().splitlines()[1:-1]:
        entry = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [entry]
        if not entry.endswith("/"):
            named.add("".join(folders))
    modules = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "matir_cli").rglob("*.py")
        if path.name != "__init__.py"
    }
    assert named == modules
    described = [line for line in tree.splitlines() if line.endswith((".", "?", "!"))]
    assert len(described) > len(modules)


# Pages


@pytest.mark.parametrize("topic", topics())
def test_every_page_starts_with_a_title_and_one_sentence(topic: str) -> None:
    page = read_page(topic)
    lines = page.text.splitlines()
    assert re.fullmatch(r"# \S.*", lines[0])
    assert page.title == lines[0][2:]
    assert lines[1] == ""
    assert re.fullmatch(r"[A-Z][^\n]*\.", page.description)
    assert ". " not in page.description
    assert len(page.description) <= 100


def test_the_manual_lists_every_page() -> None:
    assert topics() == [path.stem for path in PAGES]
    linked = set(re.findall(r"\]\(matir_cli/manual/([\w-]+)\.md\)", README.read_text(encoding="utf-8")))
    assert linked == {*topics()}


def test_the_readme_is_short() -> None:
    content = README.read_bytes()
    assert content.count(b"\n") <= 250
    assert len(content) <= 15_000


# Links and paths


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", without_code_blocks(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_code_blocks(path: Path) -> str:
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_no_link_leads_nowhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(path))
    assert links or path.stem not in ("README", "quickstart", "CONTRIBUTING", "searching")
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path if not file else (path.parent / file).resolve()
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_path_in_the_notes_for_contributors_exists() -> None:
    words = re.findall(r"`([^`\n]+)`", without_code_blocks(CONTRIBUTING))
    paths = [
        word
        for word in words
        if re.fullmatch(r"[\w.-]+(/[\w.-]*)+|[\w-]+\.(py|toml|md)", word) and not word.startswith(".venv/")
    ]
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


# Examples


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of every call of `matir` after a prompt, also of those within a pipe."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.startswith("$ "):
            continue
        lexer = shlex.shlex(line[2:], posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "|"]:
            if word in ("<", ">", "2>", ">>"):
                words.append(word)
            elif set(word) <= set("|&;()"):
                call = words
                words = []
                while call and re.match(r"\w+=", call[0]):
                    call = call[1:]
                if call and Path(call[0]).name == "matir":
                    redirected = next((n for n, each in enumerate(call) if each[-1] in "<>"), len(call))
                    yield call[1:redirected]
            else:
                words.append(word)


def parse(words: list[str]) -> None:
    """Parse a command line down to the options of its command, without running it.

    Raises:
        click.UsageError: there is no such command or option.
    """
    command: click.Command | None = matir
    context = click.Context(matir)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        _, command, words = command.resolve_command(context, words)
        assert command is not None
        context = click.Context(command, parent=context)
    assert command is not None
    command.make_parser(context).parse_args([*words])


CONSOLE = [path for path in DOCUMENTS if blocks(path, "console") and path.stem != "commands"]


@pytest.mark.parametrize("path", CONSOLE, ids=name_of)
def test_the_commands_shown_exist(path: Path) -> None:
    calls = [words for block in blocks(path, "console") for words in commands_in(block)]
    assert calls or path.stem not in ("README", "quickstart")
    for words in calls:
        try:
            parse(words)
        except click.UsageError as error:
            pytest.fail(f"matir {shlex.join(words)}: {error.format_message()}")


def test_a_command_that_does_not_exist_is_noticed() -> None:
    calls = [
        *commands_in('$ ls | matir find "a b" --nonsense > x\n$ X=1 matir \\\n  fnd y && echo\nmatir -x\n')
    ]
    assert calls == [["find", "a b", "--nonsense"], ["fnd", "y"]]
    for words in calls:
        with pytest.raises(click.UsageError):
            parse(words)


def run_python(script: str, folder: Path) -> str:
    """Run a script as a user would; what it prints."""
    done = subprocess.run(
        [sys.executable, *WARNINGS, "-c", script], cwd=folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_the_examples_in_python_run(indexed: Indexed, tmp_path: Path) -> None:
    code = blocks(MANUAL / "python.md", "python")
    assert code
    demo = tmp_path / "matir-demo"
    shutil.copytree(indexed.photos, demo / "photos")
    shutil.copy(indexed.gallery, demo / "gallery.db")  # its photos are recognised, not indexed again
    printed = run_python("\n".join(code), tmp_path)
    assert "12 photos" in printed
    assert (tmp_path / "house.png").exists()


def test_the_example_in_the_readme_runs(indexed: Indexed, tmp_path: Path) -> None:
    code = blocks(README, "python")
    assert code
    (tmp_path / "demo").mkdir()
    shutil.copy(indexed.gallery, tmp_path / "demo" / "gallery.db")
    printed = run_python("\n".join(code), tmp_path)
    assert len(re.findall(r"^[123] \d+\.png 0\.\d+ \d+ pixels$", printed, re.MULTILINE)) == 3


def test_the_example_in_sql_runs(indexed: Indexed) -> None:
    (statement,) = blocks(MANUAL / "gallery-format.md", "sql")
    db = apsw.Connection(str(indexed.gallery), flags=apsw.SQLITE_OPEN_READONLY)
    db.enable_load_extension(True)
    db.load_extension(sqlite_vec.loadable_path())
    found: list[Any] = db.execute(statement).fetchall()
    (owner,) = db.execute("select photo_id from vectors where region_id = 1").fetchall()
    db.close()
    assert len(found) == 5
    assert found[0] == (*owner, pytest.approx(1.0))
    assert [cosine for _, cosine in found] == sorted((cosine for _, cosine in found), reverse=True)


def test_messages_in_the_troubleshooting_page_are_those_of_the_program() -> None:
    source = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "matir_cli").rglob("*.py"))
    words = " ".join(re.sub(r"\{[^{}]*\}", "...", source).split())
    page = (MANUAL / "troubleshooting.md").read_text(encoding="utf-8").partition("## Symptoms")[0]
    messages = re.findall(r"^- \*\*(.+?)\*\*", page, re.MULTILINE)
    assert len(messages) >= 8
    parts = [part.strip(" .,") for message in messages for part in message.split("...")]
    assert [part for part in parts if part not in words] == []
