"""Fuzz campaign: mutated inputs of every parser of strangers' files; only a `MatirError` may come out.

`PARSERS` is the registry: a parser is one row, a name with seeds and a callable that takes bytes.
"""

import random
import warnings
from pathlib import Path

from matir_cli.errors import MatirError
from tests.fuzz.campaign import main_of
from tests.fuzz.mutation import mutate
from tests.fuzz.parsers import PARSERS

COUNT = 100_000
"""Inputs of the full campaign, shared by all parsers."""


def trial(draw: random.Random, folder: Path) -> str | None:
    """Give one mutated seed to one parser; exceptions other than `MatirError` are findings."""
    name = draw.choice(list(PARSERS))
    parser = PARSERS[name]
    content = mutate(draw, parser.seeds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser.read(content, folder)
    except MatirError:
        return None
    except Exception as error:
        raise AssertionError(f"{name}: {type(error).__name__} for {content[:2000]!r}") from error
    return None


if __name__ == "__main__":
    main_of("parsers", trial, count=COUNT)
