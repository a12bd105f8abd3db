"""Modules that a command imports: none of a library that it does not use, so that it begins at once."""

import os
import subprocess
import sys

import click
import pytest

from matir_cli.cli.group import COMMANDS, SUMMARIES, matir, module_of
from tests.support.process import Indexed

MODELS = {
    *("torch", "torchvision", "llama_cpp", "transformers", "sam2", "open_clip", "huggingface_hub"),
    *("safetensors", "hydra"),
}

SERVERS = {
    *("asyncio", "http.client", "mcp", "ray", "socket", "ssl", "starlette", "uvicorn", "watchfiles"),
    *("importlib.metadata", "filelock"),
}

PICTURES = {"PIL", "contourpy", "rawpy", "lxml", "matplotlib", "rich", "yaml"}

OPTIONAL_STEPS = {
    *("matir_cli.search.near_copies", "matir_cli.search.explainer", "matir_cli.server.client"),
    *("matir_cli.cli.preliminary_table", "matir_cli.cli.result_files", "matir_cli.cluster.ray_workers"),
}

VECTORS = {"numpy", "numkong", "tokenizers", "pycocotools"}

DATABASE = {"apsw", "sqlite_vec", "matir_cli.gallery.database"}

OTHERS = MODELS | SERVERS | PICTURES | OPTIONAL_STEPS
"""What the commands below, all of them, can do without."""

GALLERY = "GALLERY"

WITH_GALLERY = ("--db", GALLERY)

UNUSED = {
    ("--help",): OTHERS | VECTORS | DATABASE,
    ("help", "searching"): OTHERS | VECTORS | DATABASE,
    ("find", "--help"): OTHERS | {"tokenizers"},
    ("find", "dog", "--no-rerank", *WITH_GALLERY): OTHERS,
    ("find", "dog left of a house", "--no-rerank", "--jsonl", *WITH_GALLERY): OTHERS,
    ("parse", "a dog left of a tree"): OTHERS | {"tokenizers"},
    ("ls", *WITH_GALLERY): OTHERS | {"numkong", "tokenizers"},
    ("info", *WITH_GALLERY): OTHERS - {"importlib.metadata", "socket"} | {"numkong", "tokenizers"},
    ("show", "1", *WITH_GALLERY): OTHERS | {"numkong", "tokenizers"},
    # Of one photo: to compare two, their pixels are needed.
    ("duplicates", "--in", "PHOTO", *WITH_GALLERY): (
        OTHERS - {"matir_cli.search.near_copies"} | {"tokenizers"}
    ),
    ("tag", "dog", "-n", "1", "--no-rerank", "--dry-run", *WITH_GALLERY): OTHERS - {"lxml"},
    ("rm", "--missing", "--dry-run", *WITH_GALLERY): OTHERS | {"tokenizers"},
    ("saved", "list", *WITH_GALLERY): OTHERS | {"tokenizers"},
    ("export", "--coco", "-", *WITH_GALLERY): OTHERS | {"tokenizers"},
    ("merge", "--help"): OTHERS | {"tokenizers"},
    # Both look for photos, of which Pillow knows the suffixes.
    ("add", "PHOTO", *WITH_GALLERY): OTHERS - {"PIL"} | {"tokenizers"},
    ("sync", "PHOTO", *WITH_GALLERY): OTHERS - {"PIL"} | {"tokenizers"},
}
"""Modules that a command must not import, by its words."""


def imported_by(*words: str) -> set[str]:
    """The names of all modules that `matir` imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "matir_cli", *words], capture_output=True, check=True
    )
    lines = done.stderr.decode().splitlines()
    return {line.rsplit("|", 1)[-1].strip() for line in lines if line.startswith("import time:")}


@pytest.mark.parametrize("words", UNUSED, ids=" ".join)
def test_a_command_imports_no_library_that_it_does_not_use(indexed: Indexed, words: tuple[str, ...]) -> None:
    named = {GALLERY: str(indexed.gallery), "PHOTO": str(indexed.photos / "0000.png")}
    imported = imported_by(*(named.get(word, word) for word in words))
    assert "click" in imported
    assert imported & UNUSED[words] == set()


@pytest.mark.parametrize(
    ("typed", "completed"), [("matir ", None), ("matir f", None), ("matir --", None), ("matir ls --", "ls")]
)
def test_completion_imports_no_command_but_the_one_that_is_completed(
    typed: str, completed: str | None
) -> None:
    script = """
import sys
from click.shell_completion import shell_complete
from matir_cli.cli.group import matir
shell_complete(matir, {}, "matir", "_MATIR_COMPLETE", "bash_complete")
print(*sys.modules, file=sys.stderr)
"""
    words = {"_MATIR_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, env={**os.environ, **words}
    )
    assert done.stdout
    imported = {*done.stderr.decode().split()}
    modules = {module_of(name) for name in COMMANDS}
    assert imported & modules == ({module_of(completed)} if completed else set())
    assert imported & ((OTHERS | VECTORS | DATABASE) if completed is None else OTHERS) == set()


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    assert SUMMARIES.keys() == COMMANDS.keys()
    context = click.Context(matir)
    for name, summary in SUMMARIES.items():
        command = matir.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(1000) == summary
