"""Alpha-CLIP as an encoder of whole pictures and of places in them, its mask all ones."""

from matir_cli.engines.clip.alpha_encoder import batch_size, precision
from matir_cli.engines.clip.alpha_tower import load_tower
from matir_cli.engines.clip.image_encoder import ClipImageEncoder
from matir_cli.engines.clip.image_towers import VisionTransformer
from matir_cli.engines.clip.options import ClipOptions, model_file
from matir_cli.engines.options import read_options
from matir_cli.records import EngineConfig


def load_alpha_clip_dense(config: EngineConfig, device: str) -> ClipImageEncoder:
    """The visual tower of a model set on `device`; file and errors as in `alpha_clip.load`."""
    options = read_options(config.options, ClipOptions, config.engine)
    tower = load_tower(model_file(config, "visual"), options.heads)
    tower.move(device, precision(options, device))
    return ClipImageEncoder(VisionTransformer(tower), options.transform, batch_size(options, device))
