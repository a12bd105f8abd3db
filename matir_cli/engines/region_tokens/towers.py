"""Image towers for region tokens: what is pooled in CLIP's ViT and in SigLIP 2, and how.

In CLIP, the values of the last block's attention, each of unit length, are summed by the mask's shares and
go through the rest of the block. In SigLIP 2, the pooling head spreads its attention evenly over the patches
that the mask touches. Both are what the authors' code computes; it scales CLIP's values in place.
"""

from typing import Protocol

from torch import Tensor
from torch.nn import functional

from matir_cli.engines.clip.alpha_encoder import normalise_rgb
from matir_cli.engines.clip.alpha_tower import VisualTower
from matir_cli.engines.clip.image_towers import load_vision_transformer
from matir_cli.engines.clip.options import model_file
from matir_cli.engines.device import move
from matir_cli.engines.region_tokens.options import RegionTokensOptions
from matir_cli.engines.region_tokens.text import holds_siglip
from matir_cli.engines.siglip.image_tower import SiglipImageTower
from matir_cli.engines.siglip.image_tower import load_image_tower as load_siglip_tower
from matir_cli.records import EngineConfig


class RegionTower(Protocol):
    """An image tower on its device; it moves its input there itself, and returns float32."""

    @property
    def side(self) -> int:
        """Side of the square input in pixels."""
        ...

    @property
    def grid(self) -> int:
        """Patches along each side of the input."""
        ...

    @property
    def dimensions(self) -> int:
        """Length d of a vector."""
        ...

    @property
    def photo_weight(self) -> float:
        """Weight of the whole photo's features beside a crop's."""
        ...

    def encode(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (n, 3, side, side) RGB in 0..1.

        Returns:
            (n, d) vectors, not normalised, and (n, grid^2, width) features of the patches, row by row.
        """
        ...

    def pool(self, features: Tensor, shares: Tensor) -> Tensor:
        """Return (r, d) vectors, not normalised, of regions.

        Args:
            features: (patches, width), from `encode`.
            shares: (r, patches) in 0..1, the regions' shares of the patches.
        """
        ...


class ClipRegionTower:
    """Fulfils `RegionTower` with the ViT of a CLIP."""

    photo_weight = 1.0
    """Weight of the whole photo's features beside a crop's, as in the authors' code."""

    def __init__(self, tower: VisualTower) -> None:
        """Encode with `tower`, on its device and in its dtype."""
        shape = tower.architecture
        self.side, self.grid, self.dimensions = shape.side, shape.grid, shape.dimensions
        self._tower = tower

    def encode(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """See `RegionTower.encode`."""
        weight = self._tower.proj
        patches = self._tower.conv1(move(normalise_rgb(rgb), weight.device, weight.dtype))
        vectors, values = self._tower.encode_values(patches)
        return vectors.float(), values.float()

    def pool(self, features: Tensor, shares: Tensor) -> Tensor:
        """See `RegionTower.pool`."""
        mixed = shares @ functional.normalize(features, dim=1)
        return self._tower.project_pooled(mixed.to(self._tower.proj)).float()


class SiglipRegionTower:
    """Fulfils `RegionTower` with the image tower of a SigLIP."""

    photo_weight = 0.5
    """Weight of the whole photo's features beside a crop's, as in the authors' code."""

    def __init__(self, tower: SiglipImageTower) -> None:
        """Encode with `tower`, on its device and in its dtype."""
        self.side, self.grid, self.dimensions = tower.side, tower.side // tower.patch, tower.dimensions
        self._tower = tower

    def encode(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """See `RegionTower.encode`."""
        probe = self._tower.head.probe
        vectors, tokens = self._tower.encode_tokens(move((rgb - 0.5) / 0.5, probe.device, probe.dtype))
        return vectors.float(), tokens.float()

    def pool(self, features: Tensor, shares: Tensor) -> Tensor:
        """See `RegionTower.pool`."""
        touched = (shares > 0).float()
        means = touched @ features / touched.sum(dim=1, keepdim=True).clamp(min=1)
        return self._tower.project_pooled(means.to(self._tower.head.probe)).float()


def load_region_tower(config: EngineConfig, options: RegionTokensOptions, device: str) -> RegionTower:
    """Load the image tower in a model set's file "checkpoint" onto `device`.

    Raises:
        ModelSetInvalid: the model set does not name the file.
        CheckpointInvalid: it holds neither a SigLIP nor a CLIP with a ViT.
    """
    path = model_file(config, "checkpoint")
    if holds_siglip(path):
        return SiglipRegionTower(load_siglip_tower(path, options.heads, device, options.precision))
    return ClipRegionTower(load_vision_transformer(path, options.heads, device, options.precision))
