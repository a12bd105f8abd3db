"""Bench of `matir find` by a warm server beside `matir find` alone, as processes; and of many clients.

    python -m tests.bench.bench_serve [--quick] [--photos 50] [--rounds 9] [--seconds 30]

The first judge is that of the tiny set, of 8 MB; the second is that of bench_judge, a Qwen2.5-VL of about
360 M parameters with random weights (a much smaller one with --quick). It is asked about 8 photos, and not
where the object is: random weights give no answer that ends. "Nothing remembered" is `--fresh`: all photos
are judged anew. A server saves the time to load the models, and, since
the query is repeated, that to encode the photos: a judge that stays loaded keeps those it saw last.
The text tower of the tiny set is small, too: "a text tower of full size" is the gallery of bench_find.

Then 50 clients search, judge and look at photos for --seconds, by the HTTP API.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from matir_cli.cli.commands.demo import draw
from tests.bench import bench_find, bench_judge
from tests.bench.measuring import (
    BenchParser,
    Timings,
    in_new_process,
    print_columns,
    print_heading,
    print_row,
    time_process,
)
from tests.support.judged_set import write_set
from tests.support.load import CLIENTS, run_clients
from tests.support.server import run_server

MATIR = [sys.executable, "-m", "matir_cli"]

FEW = ["--candidates", "8", "--certainty", "1", "-n", "3", "--no-ground"]
"""Options that bound the work of a large judge."""

TINY = {
    "the tiny judge, nothing remembered": ["--fresh"],
    "the tiny judge, remembered": [],
    "stage 1 alone, the tiny text tower": ["--no-rerank"],
}
"""Kind of query to its options."""

LARGE = {
    "the large judge, 8 photos, nothing remembered": [*FEW, "--fresh"],
    "the large judge, 8 photos, remembered": FEW,
}
"""The same, with the large judge."""

TOWER = {"stage 1 alone, a text tower of full size": ["--no-rerank"]}
"""The same, with the model set of bench_find."""


def compare(gallery: Path, models: str, kinds: dict[str, list[str]], rounds: int) -> None:
    """Print a row for each kind of query."""
    chosen = ["--db", str(gallery), "--models", models]
    with run_server(gallery, models):
        for kind, words in kinds.items():
            command = [*MATIR, "find", "red house", *chosen, *words]
            subprocess.run(command, check=True, capture_output=True)  # warms up the server
            alone = time_process([*command, "--no-server"], rounds)
            served = time_process(command, rounds)
            print_row(kind, alone, served, f"**{alone.median / served.median:.2f}x**")


def load(gallery: Path, photos: int, seconds: int) -> None:
    """Print what many clients at once see."""
    with run_server(gallery, "tiny") as server:
        seen = run_clients(server, photos, seconds, parts=3)
    if seen.wrong:
        raise SystemExit(f"wrong answer: {seen.wrong[0]}")
    answers = ", ".join(f"{count:,} with {status}" for status, count in sorted(seen.statuses.items()))
    memory = ", ".join(f"{size / 1e6:.0f}" for size in seen.memory)
    print_columns("", f"{CLIENTS} clients for {seconds} s")
    print_row("answers", answers)
    print_row("time of an answer", Timings(tuple(seen.seconds)))
    print_row("memory of the server after each third, MB", memory)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = BenchParser(__doc__, arguments)
    parser.add_size("--photos", 50, 8, "drawn pictures in the gallery")
    parser.add_size("--rounds", 9, 1, "processes timed of each kind")
    parser.add_size("--found", 20_000, 200, "photos of the gallery with a text tower of full size")
    parser.add_size("--layers", 12, 1, "layers of that text tower; ViT-L/14 has 12")
    parser.add_size("--seconds", 30, 1, "duration of the many clients")
    options = parser.options()
    print_heading(
        f"{options.photos:,} drawn pictures", "The processes are; the models and the pictures are not."
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_RUNTIME_DIR"] = os.environ["XDG_STATE_HOME"] = name
        gallery = folder / "gallery.db"
        draw(folder / "photos", options.photos)
        command = [*MATIR, "add", str(folder / "photos"), "--db", str(gallery), "--models", "tiny"]
        subprocess.run(command, check=True, capture_output=True)
        in_new_process(bench_judge.build, folder, bench_judge.SMALL if parser.quick else bench_judge.FULL)
        large = write_set(folder, folder / "text.gguf", folder / "projector.gguf")
        print_columns("", "`matir find` alone", "by the server", "alone / by the server")
        compare(gallery, "tiny", TINY, options.rounds)
        compare(gallery, str(large), LARGE, options.rounds)
        (folder / "tower").mkdir()
        in_new_process(bench_find.prepare, folder / "tower", options.found, options.layers)
        compare(folder / "tower" / "gallery.db", str(folder / "tower" / "bench.toml"), TOWER, options.rounds)
        print()
        load(gallery, options.photos, options.seconds)


if __name__ == "__main__":
    main()
