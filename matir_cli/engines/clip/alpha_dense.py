"""Alpha-CLIP with a mask of all ones, as dense encoder for the CLIP baselines."""

from matir_cli.engines.clip.alpha_encoder import choose_batch_size, load_visual_tower
from matir_cli.engines.clip.image_encoder import ClipImageEncoder
from matir_cli.engines.clip.image_towers import VisionTransformer
from matir_cli.engines.clip.options import ClipOptions
from matir_cli.engines.options import read_options
from matir_cli.records import EngineConfig


def load_alpha_clip_dense_encoder(config: EngineConfig, device: str) -> ClipImageEncoder:
    """Load a model set's visual tower onto `device`; file and errors as in `load_alpha_clip_encoder`."""
    options = read_options(config.options, ClipOptions, config.engine)
    tower = VisionTransformer(load_visual_tower(config, options, device))
    return ClipImageEncoder(tower, options.transform, choose_batch_size(options, device))
