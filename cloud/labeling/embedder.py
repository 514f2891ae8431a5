"""Embed photos with a frozen backbone and horizontal-flip test-time augmentation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import keras
import numpy as np

from cloud.dataset.example import Example
from cloud.labeling.ensemble import Embeddings
from cloud.modeling.arrays import Ints
from cloud.modeling.backbones import Backbone, BackboneUnavailableError, get_backbone, weights_digest
from cloud.progress import Progress
from cloud.training.embeddings import embeddings
from cloud.training.photo_check import PhotoChecker

FLIPPED = "mirrored"
"""Folder of the flipped photos' embeddings within the cache."""
_WIDTH_AXIS = 2


@dataclass(frozen=True, slots=True)
class Embedder:
    """A frozen backbone that embeds each photo, and its mirror image where that shows the same.

    Attributes:
        backbone: the backbone.
        network: pixels to embedding.
        flipped: pixels to the embedding of their mirror image; None if the backbone has no use for it.
        cache_dir: where embeddings are cached.
    """

    backbone: Backbone
    network: keras.Model
    flipped: keras.Model | None
    cache_dir: Path

    @classmethod
    def open(cls, name: str, cache_dir: Path) -> Self:
        """Load a backbone with its pretrained weights.

        Args:
            name: of the backbone.
            cache_dir: as for `cloud.training.embeddings.embeddings`.

        Raises:
            BackboneUnavailableError: the name is not a backbone, or its pretrained weights are not available.
        """
        backbone = get_backbone(name)
        if not backbone.pretrained:
            raise BackboneUnavailableError(
                f"backbone {name!r} has no pretrained weights", hint="use efficientnet-lite0 or xception"
            )
        network = backbone.build()
        if not backbone.mirrored:
            return cls(backbone, network, None, cache_dir)
        # The flip is a layer before the same network, so that decoding and weights are shared.
        image = keras.Input(network.input_shape[1:])
        flipped = keras.Model(image, network(keras.ops.flip(image, axis=_WIDTH_AXIS)))
        return cls(backbone, network, flipped, cache_dir)

    def decodable(self, photos: Sequence[Example], progress: Progress) -> list[Example]:
        """Return the photos that can be decoded, in their order."""
        return PhotoChecker(self.backbone, self.cache_dir).decodable(photos, progress)[0]

    def groups(self, photos: Sequence[Example], progress: Progress) -> Ints:
        """Return the number of each photo's group of near-duplicates, `[N]`."""
        return PhotoChecker(self.backbone, self.cache_dir).groups(photos, progress)

    @property
    def digest(self) -> str:
        """Digest of the network's weights."""
        return weights_digest(self.network)

    def embed(self, photos: Sequence[Example], progress: Progress) -> Embeddings:
        """Embed at least one photo: `[2, N, D]`, `[1, N, D]` without mirror images.

        Raises:
            TrainingError: a photo cannot be decoded.
        """
        # Both networks have the same weights and so the same cache file name: one uses a sub-folder.
        views = (
            embeddings(photos, self.backbone, network, folder, progress)
            for network, folder in (
                (self.network, self.cache_dir),
                (self.flipped, self.cache_dir / FLIPPED),
            )
            if network is not None
        )
        return np.stack(list(views))


def decodable(photos: Sequence[Example], embedders: Sequence[Embedder], progress: Progress) -> list[Example]:
    """Return the photos that every network can decode, in their order."""
    usable = list(photos)
    for embedder in embedders:
        usable = embedder.decodable(usable, progress)
    return usable
