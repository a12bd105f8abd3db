"""Region tokens as region encoder: vectors of all of a photo's masks from one pass over the photo."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from matir_cli.engines.batches import BatchPart, BatchRunner, split_batch
from matir_cli.engines.clip.alpha_encoder import check_mask_sizes, choose_batch_size, to_unit_vectors
from matir_cli.engines.device import move
from matir_cli.engines.options import read_options
from matir_cli.engines.protocols import MaskedPhoto
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
        (vectors,) = self.encode_photos([MaskedPhoto(image, masks)])
        return vectors

    @torch.inference_mode()
    def encode_photos(self, photos: Sequence[MaskedPhoto]) -> list[FloatArray]:
        """Return what `encode` returns for each of `photos`; batches of crops run over their borders."""
        grids = [self._fit(photo) for photo in photos]
        regions: dict[int, Tensor] = {}
        for group, photo_vector, features in self._encode_crops(photos, grids):
            regions[group] = self._pool(photos[group], photo_vector, features, grids[group])
        none = np.empty((0, self.dimensions), dtype=np.float32)
        return [to_unit_vectors(regions[group]) if group in regions else none for group in range(len(photos))]

    def _fit(self, photo: MaskedPhoto) -> CropGrid:
        """Return the crops that a photo's masks need; ValueError if one has another size than the photo."""
        height, width = check_mask_sizes(photo)
        if all(area(rle) == height * width for rle in photo.masks):
            return CropGrid(0, 0)
        return CropGrid.fit(height, width, self._tower.side, self._crops)

    def _encode_crops(
        self, photos: Sequence[MaskedPhoto], grids: Sequence[CropGrid]
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield the number of each photo with masks, (d,), its vector, and (patches, width), its features.

        The features are on the grid of the photo's crops.
        """
        counts = [
            1 + grid.rows * grid.columns if photo.masks else 0
            for photo, grid in zip(photos, grids, strict=True)
        ]
        squares: dict[int, Tensor] = {}  # of the photos in the batch

        def encode_batch(batch: slice) -> tuple[list[BatchPart], Tensor, Tensor]:
            parts = list(split_batch(counts, batch))
            for group in [group for group in squares if group < parts[0].group]:
                del squares[group]
            for group in [part.group for part in parts if part.group not in squares]:
                squares[group] = torch.from_numpy(grids[group].render(photos[group].image, self._tower.side))
            return parts, *self._tower.encode(torch.cat([squares[part.group][part.items] for part in parts]))

        vectors: dict[int, Tensor] = {}
        features: defaultdict[int, list[Tensor]] = defaultdict(list)
        for parts, batch_vectors, batch_features in self._batches.run(sum(counts), encode_batch):
            for part in parts:
                group = part.group
                if part.items.start == 0:
                    vectors[group] = batch_vectors[part.rows.start]
                features[group].append(batch_features[part.rows])
                if part.items.stop == counts[group]:
                    merged = grids[group].merge(torch.cat(features.pop(group)), self._tower.photo_weight)
                    yield group, vectors.pop(group), merged

    def _pool(self, photo: MaskedPhoto, vector: Tensor, features: Tensor, grid: CropGrid) -> Tensor:
        """Return (len(photo.masks), d), not normalised: `vector` for the whole photo, else mixed features."""
        height, width = photo.image.shape[:2]
        parts = [rle for rle in photo.masks if area(rle) < height * width]
        shares = move(grid.render_masks(parts, self._tower.grid), features.device)
        shares = suppress_global_patches(features, shares, self._threshold)
        regions = iter(self._tower.pool(features, shares))
        return torch.stack([vector if area(rle) == height * width else next(regions) for rle in photo.masks])


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
