"""Checks of llama.cpp and of the judge that it runs."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from importlib import metadata

import numpy as np

from matir_cli.engines.protocols import Judge, JudgePhoto
from matir_cli.engines.registry import load_judge
from matir_cli.errors import MatirError, PartMissing, WeightsMissing
from matir_cli.maintenance.doctor.findings import Finding, FindingState, ok, warning
from matir_cli.model_sets.catalogue import load_model_set
from matir_cli.model_sets.session import locate_part

WRONG_BACKENDS = ("Vulkan",)
"""Backends of llama.cpp that are known to give wrong numbers for Qwen2.5-VL (ggml-org/llama.cpp, issues 13046
and 20418)."""

_SIDE = 224
"""Side in pixels of the drawn picture."""


def examine_llama_cpp() -> Iterator[Finding]:
    """Report which distribution of llama-cpp-python is installed, and for which backends it was built."""
    try:
        from matir_cli.engines.llama_cpp.build import backend_names
    except (ImportError, OSError, RuntimeError):
        return  # reported by the check of the engines
    backends = backend_names()
    text = f"{_distribution()}; built for {', '.join(backends)}"
    wrong = [name for name in backends if name in WRONG_BACKENDS]
    if wrong:
        remedy = "Use --device cpu for searches, or build it for CUDA or Metal."
        yield warning("llama.cpp", f"{text}; {wrong[0]} is known to give wrong answers", remedy)
    else:
        yield ok("llama.cpp", text)


def _distribution() -> str:
    """Return name, version and kind of the distribution that the module `llama_cpp` is from."""
    names = sorted(set(metadata.packages_distributions().get("llama_cpp", ())))
    described = []
    for name in names:
        found = metadata.distribution(name)
        tags = [
            line.partition(":")[2].strip()
            for line in (found.read_text("WHEEL") or "").splitlines()
            if line.startswith("Tag:")
        ]
        described.append(f"{name} {found.version} ({', '.join(tags) or 'no wheel'})")
    return " and ".join(described) or "no distribution"


def examine_judge(model_set: str) -> Iterator[Finding]:
    """Ask the judge of `model_set` about one drawn picture, on the device that a search would use."""
    try:
        config = locate_part(load_model_set(model_set), "judge")
    except (PartMissing, WeightsMissing):
        return  # reported by the check of the model sets
    except MatirError as error:
        yield Finding("judge", FindingState.PROBLEM, fault=error)
        return
    start = time.monotonic()
    try:
        judge = load_judge(config, "auto")
    except MatirError as error:
        yield Finding("judge", FindingState.PROBLEM, fault=error)
        return
    try:
        yield _ask(judge, config.identity.name, model_set, start)
    except MatirError as error:
        yield Finding("judge", FindingState.PROBLEM, fault=error)
    finally:
        judge.close()


def _ask(judge: Judge, name: str, model_set: str, start: float) -> Finding:
    """Ask about a red square on grey; `start` is the time when loading began."""
    image = np.full((_SIDE, _SIDE, 3), 160, np.uint8)
    image[60:164, 60:164] = (220, 30, 30)
    red, blue = judge.rerank(JudgePhoto(0, image), ["red square", "blue circle"])
    took = f"answered in {time.monotonic() - start:.1f} s"
    remedy = f"Compare with: matir models try --device cpu {shlex.quote(model_set)}"
    if red is None or blue is None:
        return warning("judge", f"{name} computes no numbers for a drawn picture", remedy)
    if red.margin <= blue.margin:
        return warning("judge", f"{name} {took}, and takes a drawn red square for a blue circle", remedy)
    return ok("judge", f"{name} {took}, and tells a drawn red square from a blue circle")
