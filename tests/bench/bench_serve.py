"""Bench of `matir find` by a warm server beside `matir find` alone, as processes.

    python -m tests.bench.bench_serve [--quick] [--photos 50] [--rounds 9]

The models are the tiny set, of which the judge takes 8 MB: what a server saves grows with the judge, the
time that the judge takes for a photo stays. "Nothing remembered" is `--fresh`: all photos are judged anew.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from matir_cli.cli.commands.demo import draw
from tests.bench.measuring import BenchParser, print_columns, print_heading, print_row, time_process

MATIR = [sys.executable, "-m", "matir_cli"]

QUERIES = {
    "a judged query, nothing remembered": ["--fresh"],
    "a judged query, remembered": [],
    "stage 1 alone": ["--no-rerank"],
}
"""Kind of query to its options."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = BenchParser(__doc__, arguments)
    parser.add_size("--photos", 50, 3, "drawn pictures in the gallery")
    parser.add_size("--rounds", 9, 1, "processes timed of each kind")
    options = parser.options()
    print_heading(
        f"{options.photos:,} drawn pictures; the tiny set", "The processes are; the models are not."
    )
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_RUNTIME_DIR"] = os.environ["XDG_STATE_HOME"] = name
        gallery = ["--db", str(Path(name) / "gallery.db"), "--models", "tiny"]
        draw(Path(name) / "photos", options.photos)
        subprocess.run([*MATIR, "add", str(Path(name) / "photos"), *gallery], check=True, capture_output=True)
        print_columns("", "`matir find` alone", "by the server", "alone / by the server")
        with subprocess.Popen(
            [*MATIR, "serve", *gallery], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as server:
            assert server.stdout is not None
            server.stdout.readline()  # it is ready
            try:
                for kind, words in QUERIES.items():
                    command = [*MATIR, "find", "red house", *gallery, *words]
                    subprocess.run(command, check=True, capture_output=True)  # warms up the server
                    alone = time_process([*command, "--no-server"], options.rounds)
                    served = time_process(command, options.rounds)
                    print_row(kind, alone, served, f"**{alone.median / served.median:.2f}x**")
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
