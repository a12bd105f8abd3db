"""The engines by name, and loading them.

An engine's module is imported when it is loaded and not before, since what it stands on
(torch, llama_cpp) takes seconds to import; its settings are a module of their own, which is light. A
new engine is these two, and a line here for each.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pkgutil import resolve_name
from typing import TypeVar, cast

from matir_cli.engines.clip.options import ClipOptions, PlainClipOptions
from matir_cli.engines.options import EngineOptions, read_options
from matir_cli.engines.protocols import DenseEncoder, Judge, RegionEncoder, RegionProposer, TextEncoder
from matir_cli.engines.qwen_vl.options import QwenVlOptions
from matir_cli.engines.sam2.options import Sam2Options
from matir_cli.errors import ModelSetInvalid
from matir_cli.records import EngineConfig

PROPOSERS = {"sam2": "matir_cli.engines.sam2.proposer:load_sam2_proposer"}

REGION_ENCODERS = {"alpha_clip": "matir_cli.engines.clip.alpha_encoder:load_alpha_clip_encoder"}

TEXT_ENCODERS = {
    "alpha_clip": "matir_cli.engines.clip.text_encoder:load_clip_text_encoder",
    "clip": "matir_cli.engines.clip.checkpoint:load_checkpoint_text_encoder",
}

DENSE_ENCODERS = {
    "alpha_clip": "matir_cli.engines.clip.alpha_dense:load_alpha_clip_dense",
    "clip": "matir_cli.engines.clip.image_encoder:load_clip_image_encoder",
}

JUDGES = {"qwen_vl": "matir_cli.engines.qwen_vl.judge:load_qwen_vl_judge"}

OPTIONS: dict[str, type[EngineOptions]] = {
    "sam2": Sam2Options,
    "alpha_clip": ClipOptions,
    "clip": PlainClipOptions,
    "qwen_vl": QwenVlOptions,
}
"""The settings of each."""

Found = TypeVar("Found")


def identify_config(config: EngineConfig) -> EngineConfig:
    """With an identity not of the files alone but of the settings that matter, too.

    What is stored in a gallery compares only with what was made alike.

    Raises:
        ModelSetInvalid: no engine of that name, or options it does not take.
    """
    shape = read_options(config.options, _find(OPTIONS, config), config.identity.name).shape()
    if not shape:
        return config
    digest = hashlib.sha256(config.identity.weight_hash.encode() + shape).hexdigest()
    return replace(config, identity=replace(config.identity, weight_hash=digest))


def load_proposer(config: EngineConfig, device: str) -> RegionProposer:
    """Load a proposer onto `device` ("auto", "cuda", "mps" or "cpu").

    Raises:
        ModelSetInvalid: no engine of that name, or options it does not take.
        CheckpointInvalid: a file that is not what the engine needs.
        DeviceUnavailable: the device is not there.
    """
    return cast("RegionProposer", resolve_name(_find(PROPOSERS, config))(config, _device(device)))


def load_region_encoder(config: EngineConfig, device: str) -> RegionEncoder:
    """Load the part of an encoder that sees regions; arguments and errors as in `load_proposer`."""
    return cast("RegionEncoder", resolve_name(_find(REGION_ENCODERS, config))(config, _device(device)))


def load_text_encoder(config: EngineConfig) -> TextEncoder:
    """Load the part of an encoder that reads queries; errors as in `load_proposer`."""
    return cast("TextEncoder", resolve_name(_find(TEXT_ENCODERS, config))(config))


def load_dense_encoder(config: EngineConfig, device: str) -> DenseEncoder:
    """Load an encoder as CLIP's baselines use it; arguments and errors as in `load_proposer`.

    Alpha-CLIP with a mask of all ones is one; so is any CLIP, which cannot be a region encoder.
    """
    return cast("DenseEncoder", resolve_name(_find(DENSE_ENCODERS, config))(config, _device(device)))


def load_judge(config: EngineConfig, device: str) -> Judge:
    """Load a judge; arguments and errors as in `load_proposer`. The engine itself knows its devices."""
    return cast("Judge", resolve_name(_find(JUDGES, config))(config, device))


def has_own_processor(device: str) -> bool:
    """Whether `device` ("auto" and so on) leaves the CPU's cores to others."""
    return _device(device) != "cpu"


def _find(engines: Mapping[str, Found], config: EngineConfig) -> Found:
    if config.engine not in engines:
        reason = f"no engine is called {config.engine!r}; there is {', '.join(sorted(engines))}"
        raise ModelSetInvalid(config.identity.name, reason)
    return engines[config.engine]


def _device(wanted: str) -> str:
    from matir_cli.engines.device import choose_device

    return choose_device(wanted)
