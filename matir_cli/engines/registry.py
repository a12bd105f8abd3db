"""Registry of engines: loader functions and options by the name in a model set.

To add an engine, write one module that fulfils a protocol, one light `EngineOptions` class in a module
of its own, and add one line for each to the tables below. The tables name functions as "module:function"
because an engine's module is imported only when it is loaded: torch and llama_cpp take seconds to import.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pkgutil import resolve_name
from typing import TypeVar, cast

from matir_cli.engines.clip.options import ClipOptions, PlainClipOptions
from matir_cli.engines.options import EngineOptions, read_options
from matir_cli.engines.protocols import DenseEncoder, Judge, RegionEncoder, RegionProposer, TextEncoder
from matir_cli.engines.qwen_vl.options import Qwen3VlOptions, QwenVlOptions
from matir_cli.engines.region_tokens.options import RegionTokensOptions
from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.errors import ModelSetInvalid
from matir_cli.records import EngineConfig

PROPOSERS = {"sam2": "matir_cli.engines.sam2.proposer:load_sam2_proposer"}
"""Loaders (config, device) -> `RegionProposer`, by engine name."""

REGION_ENCODERS = {
    "alpha_clip": "matir_cli.engines.clip.alpha_encoder:load_alpha_clip_encoder",
    "region_tokens": "matir_cli.engines.region_tokens.encoder:load_region_tokens_encoder",
}
"""Loaders (config, device) -> `RegionEncoder`, by engine name."""

TEXT_ENCODERS = {
    "alpha_clip": "matir_cli.engines.clip.text_encoder:load_clip_text_encoder",
    "clip": "matir_cli.engines.clip.checkpoint:load_checkpoint_text_encoder",
    "region_tokens": "matir_cli.engines.region_tokens.text:load_region_tokens_text_encoder",
}
"""Loaders (config) -> `TextEncoder`, by engine name; they need no device."""

DENSE_ENCODERS = {
    "alpha_clip": "matir_cli.engines.clip.alpha_dense:load_alpha_clip_dense_encoder",
    "clip": "matir_cli.engines.clip.image_encoder:load_clip_image_encoder",
}
"""Loaders (config, device) -> `DenseEncoder`, by engine name."""

JUDGES = {
    "qwen_vl": "matir_cli.engines.qwen_vl.judge:load_qwen_vl_judge",
    "qwen3_vl": "matir_cli.engines.qwen_vl.judge:load_qwen3_vl_judge",
}
"""Loaders (config, device) -> `Judge`, by engine name."""

JUDGE_OPTIONS: dict[str, type[QwenVlOptions]] = {"qwen_vl": QwenVlOptions, "qwen3_vl": Qwen3VlOptions}
"""Options class of each judge."""

OPTIONS: dict[str, type[EngineOptions]] = {
    "sam2": Sam2Options,
    "alpha_clip": ClipOptions,
    "clip": PlainClipOptions,
    "region_tokens": RegionTokensOptions,
    **JUDGE_OPTIONS,
}
"""Options class of each engine."""

Entry = TypeVar("Entry")


def identify_config(config: EngineConfig) -> EngineConfig:
    """Return `config` with an identity that covers the options that change results, not the files alone.

    Regions, vectors and verdicts in a gallery are comparable only if they have the same identity.

    Raises:
        ModelSetInvalid: unknown engine name, or invalid options.
    """
    identity = read_options(config.options, _look_up(OPTIONS, config), config.identity.name).identity()
    if not identity:
        return config
    digest = hashlib.sha256(config.identity.weight_hash.encode() + identity).hexdigest()
    return replace(config, identity=replace(config.identity, weight_hash=digest))


def load_proposer(config: EngineConfig, device: str) -> RegionProposer:
    """Load a proposer onto `device` ("auto", "cuda", "mps" or "cpu").

    Raises:
        ModelSetInvalid: unknown engine name, or invalid options.
        CheckpointInvalid: a file does not hold what the engine needs.
        DeviceUnavailable: this machine does not have the device.
    """
    return cast("RegionProposer", resolve_name(_look_up(PROPOSERS, config))(config, _resolve_device(device)))


def load_region_encoder(config: EngineConfig, device: str) -> RegionEncoder:
    """Load the region side of an encoder; arguments and errors as in `load_proposer`."""
    loader = resolve_name(_look_up(REGION_ENCODERS, config))
    return cast("RegionEncoder", loader(config, _resolve_device(device)))


def load_text_encoder(config: EngineConfig) -> TextEncoder:
    """Load the text side of an encoder; errors as in `load_proposer`."""
    return cast("TextEncoder", resolve_name(_look_up(TEXT_ENCODERS, config))(config))


def load_dense_encoder(config: EngineConfig, device: str) -> DenseEncoder:
    """Load an encoder for the CLIP baselines; arguments and errors as in `load_proposer`.

    Both Alpha-CLIP (with a mask of all ones) and plain CLIP, which cannot encode regions, qualify.
    """
    loader = resolve_name(_look_up(DENSE_ENCODERS, config))
    return cast("DenseEncoder", loader(config, _resolve_device(device)))


def load_judge(config: EngineConfig, device: str) -> Judge:
    """Load a judge; arguments and errors as in `load_proposer`. The engine resolves `device` itself."""
    return cast("Judge", resolve_name(_look_up(JUDGES, config))(config, device))


def has_own_processor(device: str) -> bool:
    """Return True if `device` ("auto" and so on) leaves the CPU cores free for other work."""
    return _resolve_device(device) != "cpu"


def proposals_at_once(device: str) -> int:
    """Return the number of photos that a proposer on `device` may work on at a time, each in a thread.

    On CUDA, a second photo fills the gaps in which the first one waits for the CPU.
    """
    return 2 if _resolve_device(device) == "cuda" else 1


def _look_up(table: Mapping[str, Entry], config: EngineConfig) -> Entry:
    """Return the entry for the engine of `config`; ModelSetInvalid if there is none."""
    if config.engine not in table:
        reason = f"no engine is called {config.engine!r}; there is {', '.join(sorted(table))}"
        raise ModelSetInvalid(config.identity.name, reason)
    return table[config.engine]


def _resolve_device(name: str) -> str:
    """Call `choose_device`, imported here because it loads torch."""
    from matir_cli.engines.device import choose_device

    return choose_device(name)
