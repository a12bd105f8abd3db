"""SAM 2 networks: built from a packaged configuration, loaded from a checkpoint.

A configuration names the classes to instantiate (`_target_`), so only those that the sam2 package ships
are read; a model set can change a short list of numbers in them, `Architecture`.
"""

from collections.abc import Callable
from inspect import signature
from pathlib import Path

import sam2
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.sam2_base import SAM2Base
from torch.overrides import TorchFunctionMode

from matir_cli.engines.sam2.options import Architecture, Sam2Options
from matir_cli.engines.tensors.torch_checkpoint import describe_mismatch, read_tensors
from matir_cli.errors import CheckpointInvalid, ModelSetInvalid


def build_model(options: Sam2Options) -> SAM2Base:
    """Build an untrained SAM 2 for still images, on the CPU, in training mode.

    `torch.save({"model": model.state_dict()}, path)` writes a checkpoint that `load_model` reads.

    Raises:
        ModelSetInvalid: the numbers in `options.architecture` do not fit together.
    """
    config = OmegaConf.load(Path(sam2.__file__).parent / options.config)
    assert isinstance(config, DictConfig)
    model = config.model
    model.image_size = options.image_size
    # As in upstream's build_sam2: if the single-answer mask is unstable, use the best of the other three.
    model.sam_mask_decoder_extra_args = {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    _apply_architecture(options.architecture, model)
    _check_trunk(model.image_encoder.trunk, options)
    try:
        return instantiate(model)
    except InstantiationException as error:
        reason = f"architecture: the numbers do not fit together: {str(error).splitlines()[0]}"
        raise ModelSetInvalid("sam2", reason) from error


class _LinspaceOnCpu(TorchFunctionMode):
    """Keeps `torch.linspace` on the CPU: Hiera reads its numbers while it is built, which meta has not."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: tuple[type, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        where = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **{**(kwargs or {}), **where})


def _apply_architecture(architecture: Architecture, model: DictConfig) -> None:
    """Change the numbers in the configuration `model` that `architecture` sets."""
    trunk, neck = model.image_encoder.trunk, model.image_encoder.neck
    for name in ("embed_dim", "num_heads", "window_pos_embed_bkg_spatial_size"):
        if (value := getattr(architecture, name)) is not None:
            trunk[name] = value
    for name in ("stages", "global_att_blocks", "window_spec"):
        if (values := getattr(architecture, name)) is not None:
            trunk[name] = list(values)
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


def _check_trunk(trunk: DictConfig, options: Sam2Options) -> None:
    """Check the numbers of the image encoder, for which Hiera would fail only in its first forward pass."""
    # A configuration may leave numbers out, as those of hiera_b+ do: Hiera's own defaults count then.
    numbers = {name: parameter.default for name, parameter in signature(Hiera).parameters.items()} | dict(
        trunk
    )
    stages, windows = list(numbers["stages"]), list(numbers["window_spec"])
    stage_starts = {sum(stages[:stage]) for stage in (1, 2, 3)}
    if numbers["embed_dim"] % numbers["num_heads"]:
        reason = "architecture: embed_dim must be a multiple of num_heads"
    elif any(block in stage_starts or block >= sum(stages) for block in numbers["global_att_blocks"]):
        reason = "architecture: global_att_blocks must lie within the stages, and none may begin one"
    elif any(window % 2 for window in windows[:3]):
        reason = "architecture: window_spec must be even in the first three stages"
    elif options.image_size % (4 * windows[0]):
        reason = f"image_size must be a multiple of {4 * windows[0]}, four first windows"
    else:
        return
    raise ModelSetInvalid("sam2", reason)


def load_model(options: Sam2Options, checkpoint: Path) -> SAM2Base:
    """Load SAM 2 with the weights in `checkpoint`, on the CPU, in evaluation mode.

    Raises:
        ModelSetInvalid: as in `build_model`.
        CheckpointInvalid: the file is damaged, is not a checkpoint, or belongs to another model.
    """
    state = read_tensors(checkpoint, key="model")
    # Without memory for the weights: what a model set claims is compared with the file first.
    with torch.device("meta"), _LinspaceOnCpu():
        model = build_model(options)
    if mismatch := describe_mismatch(model.state_dict(), state):
        raise CheckpointInvalid(checkpoint, f"not the SAM 2 of the configuration: {mismatch}")
    for name, weight in state.items():
        if not weight.isfinite().all():
            raise CheckpointInvalid(checkpoint, f"{name} holds numbers that are not finite")
    copies = {
        name: weight.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        for name, weight in state.items()
    }
    model.load_state_dict(copies, assign=True)
    model.eval().requires_grad_(False)
    _fix_positions(model)
    return model


def _fix_positions(model: SAM2Base) -> None:
    """Interpolate Hiera's position embedding once: it is the same for every image of the model's size.

    Torch's first versions that are permitted here cannot interpolate so on MPS.
    """
    trunk = model.image_encoder.trunk
    side = model.image_size // trunk.patch_embed.proj.stride[0]
    trunk.register_buffer("fixed_positions", trunk._get_pos_embed((side, side)), persistent=False)
    trunk._get_pos_embed = lambda _size: trunk.fixed_positions
