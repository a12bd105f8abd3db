"""SAM 2 as a module: built from a configuration that the sam2 package ships, filled from a checkpoint.

A configuration names the classes to build (`_target_`), so only the packaged ones are
read; what may differ from them is a short list of numbers, `Architecture`.
"""

from collections.abc import Mapping
from pathlib import Path

import sam2
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from matir_cli.engines.sam2.options import Architecture, Sam2Options
from matir_cli.engines.tensors.torch_checkpoint import read_tensors
from matir_cli.errors import CheckpointInvalid, ModelSetInvalid


def build_model(options: Sam2Options) -> SAM2Base:
    """An untrained SAM 2 for still pictures, on the CPU, in training mode.

    `torch.save({"model": model.state_dict()}, path)` makes a checkpoint of it.

    Raises:
        ModelSetInvalid: the numbers of `options.architecture` do not fit together.
    """
    config = OmegaConf.load(Path(sam2.__file__).parent / options.config)
    assert isinstance(config, DictConfig)
    model = config.model
    model.image_size = options.image_size
    # As upstream's build_sam2: for a prompt with one answer, fall back on the best of the three others.
    model.sam_mask_decoder_extra_args = {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    _apply(options.architecture, model)
    _check(model.image_encoder.trunk, options)
    return instantiate(model)


def _apply(architecture: Architecture, model: DictConfig) -> None:
    trunk, neck = model.image_encoder.trunk, model.image_encoder.neck
    for name in ("embed_dim", "num_heads", "window_pos_embed_bkg_spatial_size"):
        if (value := getattr(architecture, name)) is not None:
            trunk[name] = value
    for name in ("stages", "global_att_blocks", "window_spec"):
        if (several := getattr(architecture, name)) is not None:
            trunk[name] = list(several)
    neck.backbone_channel_list = [trunk.embed_dim * factor for factor in (8, 4, 2, 1)]
    if architecture.memory_layers is not None:
        model.memory_attention.num_layers = architecture.memory_layers
    if (width := architecture.d_model) is not None:
        neck.d_model = neck.position_encoding.num_pos_feats = width
        attention = model.memory_attention
        attention.d_model = attention.layer.d_model = width
        attention.layer.self_attention.embedding_dim = width
        attention.layer.cross_attention.embedding_dim = width
        memory = model.memory_encoder
        memory.in_dim = memory.mask_downsampler.embed_dim = memory.fuser.layer.dim = width


def _check(trunk: DictConfig, options: Sam2Options) -> None:
    """Refuse what Hiera would only trip over in the middle of its first picture."""
    stages = list(trunk.stages)
    windows = list(trunk.get("window_spec", (8, 4, 14, 7)))  # Hiera's default
    later = {sum(stages[:stage]) for stage in (1, 2, 3)}
    if trunk.embed_dim % trunk.get("num_heads", 1):
        reason = "architecture: embed_dim must be a multiple of num_heads"
    elif any(block in later or block >= sum(stages) for block in trunk.global_att_blocks):
        reason = "architecture: global_att_blocks must lie within the stages, and none may begin one"
    elif any(window % 2 for window in windows[:3]):
        reason = "architecture: window_spec must be even in the first three stages"
    elif options.image_size % (4 * windows[0]):
        reason = f"image_size must be a multiple of {4 * windows[0]}, four first windows"
    else:
        return
    raise ModelSetInvalid("sam2", reason)


def load_model(options: Sam2Options, checkpoint: Path) -> SAM2Base:
    """SAM 2 with the weights of `checkpoint`, on the CPU, ready for inference.

    Raises:
        ModelSetInvalid: as `build_model`.
        CheckpointInvalid: the file is damaged, is something else, or is for another model.
    """
    state = read_tensors(checkpoint, under="model")
    model = build_model(options)
    if reason := _difference(model.state_dict(), state):
        raise CheckpointInvalid(checkpoint, reason)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def _difference(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What keeps `found` from being loaded as `wanted`; empty if nothing does."""
    if missing := sorted(wanted.keys() - found.keys()):
        return f"tensors missing: {len(missing)}, the first is {missing[0]}"
    if unknown := sorted(found.keys() - wanted.keys()):
        return f"tensors of another model: {len(unknown)}, the first is {unknown[0]}"
    for name, tensor in wanted.items():
        if tensor.shape != found[name].shape:
            return f"{name} has the shape {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
        if not found[name].is_floating_point() or not bool(found[name].isfinite().all()):
            return f"{name} holds something else than finite numbers"
    return ""
