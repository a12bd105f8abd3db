"""Region tokens as region encoder: vectors of all of a photo's masks from one pass over the photo."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from matir_cli.engines.batches import BatchRunner
from matir_cli.engines.clip.alpha_encoder import choose_batch_size, to_unit_vectors
from matir_cli.engines.options import read_options
from matir_cli.engines.region_tokens.options import RegionTokensOptions
from matir_cli.engines.region_tokens.pooling import CropGrid, suppress_global_patches
from matir_cli.engines.region_tokens.towers import RegionTower, load_region_tower
from matir_cli.masks import area
from matir_cli.records import EngineConfig, FloatArray, ImageArray, Rle


class RegionTokensEncoder:
    """Fulfils `protocols.RegionEncoder`.

    Which patches are left out as global is decided by all masks that are given together, so the vector of a
    region depends a little on the other regions of its photo.
    """

    def __init__(self, tower: RegionTower, crops: int, threshold: float, batch_size: int) -> None:
        """Encode with `tower`, `batch_size` crops at a time; `crops` and `threshold` as in the options."""
        self._tower = tower
        self._crops = crops
        self._threshold = threshold
        self._batches = BatchRunner(batch_size)

    @property
    def dimensions(self) -> int:
        """Length d of a vector."""
        return self._tower.dimensions

    @torch.inference_mode()
    def encode(self, image: ImageArray, masks: Sequence[Rle]) -> FloatArray:
        """Return (len(masks), d) float32 of unit length, one row per mask.

        Args:
            image: (h, w, 3) uint8 RGB, of any size.
            masks: masks in pixels of `image`; one of all ones stands for the whole photo, and gets the
                vector that the tower itself gives the photo.

        Raises:
            ValueError: a mask does not have the size of `image`.
            EngineFailed: the device has not enough memory for one crop at a time.
        """
        height, width = image.shape[:2]
        if any((mask.height, mask.width) != (height, width) for mask in masks):
            raise ValueError(f"a mask does not have the photo's size {height} x {width}")
        if not masks:
            return np.empty((0, self.dimensions), dtype=np.float32)
        parts = [rle for rle in masks if area(rle) < height * width]
        grid = CropGrid.fit(height, width, self._tower.side, self._crops) if parts else CropGrid(0, 0)
        photo, features = self._encode_photo(image, grid)
        regions = iter(self._pool(features, grid, parts))
        rows = [photo if area(rle) == height * width else next(regions) for rle in masks]
        return to_unit_vectors(torch.stack(rows))

    def _encode_photo(self, image: ImageArray, grid: CropGrid) -> tuple[Tensor, Tensor]:
        """Return (d,), the photo's vector, and (patches, width), the features on the grid of its crops."""
        squares = torch.from_numpy(grid.render(image, self._tower.side))
        batches = list(self._batches.run(len(squares), lambda batch: self._tower.encode(squares[batch])))
        features = torch.cat([features for _, features in batches])
        return batches[0][0][0], grid.merge(features, self._tower.photo_weight)

    def _pool(self, features: Tensor, grid: CropGrid, parts: Sequence[Rle]) -> Tensor:
        """Return (len(parts), d): the vectors of regions that are not the whole photo."""
        shares = grid.render_masks(parts, self._tower.grid).to(features.device)
        shares = suppress_global_patches(features, shares, self._threshold)
        return self._tower.pool(features, shares)


def load_region_tokens_encoder(config: EngineConfig, device: str) -> RegionTokensEncoder:
    """Load a model set's region encoder onto `device`, from its file "checkpoint".

    Raises:
        ModelSetInvalid: an option is invalid, or the model set does not name the file.
        CheckpointInvalid: the file holds neither a SigLIP nor a CLIP with a ViT.
    """
    options = read_options(config.options, RegionTokensOptions, config.engine)
    tower = load_region_tower(config, options, device)
    batch_size = choose_batch_size(options, device)
    return RegionTokensEncoder(tower, options.crops, options.global_patch_threshold, batch_size)
