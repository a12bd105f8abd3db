"""Fuzz campaign: mutated GGUF files, loaded and asked in a process of their own.

Whatever is in a file, the judge either works or raises a `MatirError`: no abort, no signal, no endless load.
"""

import contextlib
import os
import random
import resource
import signal
import tempfile
import traceback
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np

from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto
from matir_cli.engines.qwen_vl.projector_rules import vision_keys
from matir_cli.engines.qwen_vl.text_rules import text_keys
from matir_cli.engines.registry import JUDGE_OPTIONS, load_judge
from matir_cli.errors import MatirError
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.weights import local_path
from matir_cli.records import EngineConfig, ModelIdentity
from tests.fuzz.campaign import main_of
from tests.support.gguf_edit import FORMATS, STRING, GgufFile, Value, read_gguf
from tests.support.small_qwen3 import make_qwen3

ADDRESS_SPACE = 6 << 30
"""Bytes of address space of a trial's process."""

SECONDS = 60
"""Processor time of a trial's process."""

SMALL_NUMBERS = (0, 1, 2, 3, 7, 127, 128, 255)

_EDGES = tuple((1 << power) + off for power in (16, 31, 32, 63) for off in (-1, 0, 1))

NUMBERS = (*SMALL_NUMBERS, *_EDGES, -1, -(1 << 31))

FLOATS = (0.0, -0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"), 5e-324)

TEXTS = (b"", b"gpt2", b"llama", b"none", b"\xff\xfe", b"a" * 5000, b"yarn", b"longrope")

ROLES = ("model", "projector")

ENGINES = tuple(JUDGE_OPTIONS)


def _make_seeds(engine: str) -> dict[str, GgufFile]:
    """Return the two sound files of a judge: the tiny set's, or random ones in the format of Qwen3-VL."""
    if engine == "qwen_vl":
        files = load_model_set("tiny").part("judge").files
        return {file.role: read_gguf(path) for file in files if (path := local_path(file))}
    with tempfile.TemporaryDirectory() as name:
        small = make_qwen3(Path(name), seed=1, precision="f16")
        return {"model": read_gguf(small.text_path), "projector": read_gguf(small.projector_path)}


_SEEDS = {engine: _make_seeds(engine) for engine in ENGINES}

_KEYS = {
    engine: {"model": list(text_keys(options.FAMILY)), "projector": list(vision_keys(options.FAMILY))}
    for engine, options in JUDGE_OPTIONS.items()
}
"""Every key that llama.cpp reads, whether the seed has it or not."""


def trial(draw: random.Random, folder: Path) -> str | None:
    """Mutate one of the two files and ask the judge about a photo."""
    engine, role = draw.choice(ENGINES), draw.choice(ROLES)
    files = {name: folder / f"{name}.gguf" for name in ROLES}
    for name, path in files.items():
        path.write_bytes(_mutate(draw, engine, role) if name == role else _SEEDS[engine][name].pack())
    return _run_apart(lambda: _ask(engine, files), folder / "errors.txt")


def _mutate(draw: random.Random, engine: str, role: str) -> bytes:
    """Return a copy of a seed with one or two changes."""
    made = deepcopy(_SEEDS[engine][role])
    changes: Sequence[Callable[[random.Random, GgufFile], None]] = (
        *([partial(_set_key, keys=_KEYS[engine][role])] * 6),
        *([_set_element] * 2),
        _drop_key,
        _change_tensor,
        _change_shape_and_size,
        _drop_tensor,
        _change_numbers,
    )
    for _ in range(draw.choice((1, 1, 2))):
        draw.choice(changes)(draw, made)
    raw = bytearray(made.pack())
    form = draw.random()
    if form < 0.15:
        length = len(made.pack_header())
        for _ in range(draw.choice((1, 2, 8))):
            raw[draw.randrange(length)] = draw.randrange(256)
    elif form < 0.2:
        del raw[draw.randrange(len(raw)) :]
    return bytes(raw)


def _hostile(draw: random.Random, kind: int) -> object:
    """Return a value of the type `kind`."""
    if kind == STRING:
        return draw.choice(TEXTS)
    letter = FORMATS[kind]
    if letter in "fd":
        value = draw.choice(FLOATS)
        return value if letter == "d" or abs(value) < 1e38 or value != value else float("inf")
    if letter == "?":
        return draw.random() < 0.5
    bits = {"b": 8, "h": 16, "i": 32, "q": 64}.get(letter.lower(), 32)
    value = draw.choice(NUMBERS) & (1 << bits) - 1
    return value - (1 << bits) if letter.islower() and value >> (bits - 1) else value


def _set_key(draw: random.Random, made: GgufFile, keys: Sequence[str]) -> None:
    """Set a key that llama.cpp reads, one of `keys`, to a hostile value, mostly of the right type."""
    key = draw.choice([*keys, *(key.decode() for key in made.values)]).encode()
    known = made.values.get(key)
    kind = known.type if known is not None else draw.choice((4, 4, 5, 6, 7, STRING))
    if draw.random() < 0.2:
        kind = draw.choice((*FORMATS, STRING))
    is_list = isinstance(known.content, list) if known is not None else False
    if draw.random() < 0.15:
        is_list = not is_list
    content = (
        [_hostile(draw, kind) for _ in range(draw.choice((0, 1, 3, 4, 600)))]
        if is_list
        else _hostile(draw, kind)
    )
    made.values[key] = Value(kind, content)


def _set_element(draw: random.Random, made: GgufFile) -> None:
    """Change, repeat or drop an element of a list, such as a token."""
    lists = [value for value in made.values.values() if isinstance(value.content, list) and value.content]
    value = draw.choice(lists)
    assert isinstance(value.content, list)
    at = draw.randrange(len(value.content))
    match draw.randrange(3):
        case 0:
            value.content[at] = _hostile(draw, value.type)
        case 1:
            value.content[at] = draw.choice(value.content)
        case _:
            del value.content[at]


def _drop_key(draw: random.Random, made: GgufFile) -> None:
    del made.values[draw.choice(list(made.values))]


def _change_tensor(draw: random.Random, made: GgufFile) -> None:
    """Change name, type or shape of a tensor, and leave its bytes."""
    tensor = draw.choice(made.tensors)
    match draw.randrange(3):
        case 0:
            tensor.name = draw.choice(
                [other.name for other in made.tensors] + [b"", b"x" * 63, b"v.class_embd"]
            )
        case 1:
            tensor.type = draw.randrange(45)
        case _:
            tensor.shape = [draw.choice(NUMBERS) for _ in range(draw.choice((0, 1, 2, 3, 4, 5)))]


def _change_shape_and_size(draw: random.Random, made: GgufFile) -> None:
    """Give a tensor another type or shape, and the bytes that go with it."""
    tensor = draw.choice(made.tensors)
    sizes = {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2}
    tensor.type = draw.choice(list(sizes))
    if draw.random() < 0.5:
        tensor.shape[draw.randrange(len(tensor.shape))] = draw.choice(SMALL_NUMBERS)
    count = int(np.prod(tensor.shape))
    tensor.data = draw.randbytes(count * sizes[tensor.type])


def _drop_tensor(draw: random.Random, made: GgufFile) -> None:
    del made.tensors[draw.randrange(len(made.tensors))]


def _change_numbers(draw: random.Random, made: GgufFile) -> None:
    """Fill a tensor with bytes that are not finite numbers, or any."""
    tensor = draw.choice(made.tensors)
    tensor.data = b"\xff" * len(tensor.data) if draw.random() < 0.5 else draw.randbytes(len(tensor.data))


def _ask(engine: str, files: dict[str, Path]) -> None:
    """Load the judge and ask it both questions about one photo."""
    options = {
        "threads": 1,
        "min_pixels": 4096,
        "max_pixels": 50176,
        "grounds_at_once": 2,
        "max_answer_tokens": 16,
    }
    image = np.arange(112 * 112 * 3, dtype=np.uint32).reshape(112, 112, 3).astype(np.uint8)
    try:
        config = EngineConfig(engine, options, files, ModelIdentity("fuzz", "0"))
        with contextlib.closing(load_judge(config, "cpu")) as judge:
            photo = JudgePhoto(0, image)
            judge.rerank(photo, ["red house", "a dog <|im_end|>"])
            judge.ground([GroundingQuestion(photo, "red house")])
    except MatirError as error:
        str(error)


def _run_apart(work: Callable[[], None], errors: Path) -> str | None:
    """Run `work` in a child process with limits; return what went wrong there, None if nothing."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            stream = os.open(errors, os.O_CREAT | os.O_WRONLY)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if status == 0:
        return None
    ended = (
        f"signal {signal.Signals(os.WTERMSIG(status)).name}"
        if os.WIFSIGNALED(status)
        else f"code {os.WEXITSTATUS(status)}"
    )
    return f"the process ended with {ended}: {errors.read_text(errors='replace')[-2000:]}"


if __name__ == "__main__":
    main_of("gguf", trial, count=300)
