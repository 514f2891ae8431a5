"""What frozen networks see of photos and of their mirror images, for teachers and doubts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import keras
import numpy as np

from cloud.dataset.example import Example
from cloud.labeling.ensemble import Sight
from cloud.modeling.backbones import Backbone, BackboneUnavailableError, get_backbone, weights_digest
from cloud.progress import Progress
from cloud.training.embeddings import embeddings

_MIRRORED = "mirrored"
_WIDTH_AXIS = 2


@dataclass(frozen=True, slots=True)
class Eye:
    """A frozen network, as it is and behind a mirror.

    Attributes:
        backbone: what it is.
        network: pixels to embedding.
        mirrored: the same for the mirror image of its input.
        cache_dir: keeps what was seen.
    """

    backbone: Backbone
    network: keras.Model
    mirrored: keras.Model
    cache_dir: Path

    @classmethod
    def open(cls, name: str, cache_dir: Path) -> Self:
        """Load a network.

        Args:
            name: of a backbone.
            cache_dir: as for `cloud.training.embeddings.embeddings`.

        Raises:
            BackboneUnavailableError: no backbone has that name, or it has no pretrained weights here.
        """
        backbone = get_backbone(name)
        if not backbone.pretrained:
            raise BackboneUnavailableError(f"backbone {name!r} has no pretrained weights", hint="use another")
        network = backbone.build()
        image = keras.Input(network.input_shape[1:])
        mirrored = keras.Model(image, network(keras.ops.flip(image, axis=_WIDTH_AXIS)))
        return cls(backbone, network, mirrored, cache_dir)

    @property
    def digest(self) -> str:
        """Names the state of the network."""
        return weights_digest(self.network)

    def look(self, photos: Sequence[Example], progress: Progress) -> Sight:
        """Embed photos, at least one, and their mirror images.

        Raises:
            TrainingError: a photo cannot be decoded.
        """
        seen = (
            embeddings(photos, self.backbone, network, folder, progress)
            for network, folder in (
                (self.network, self.cache_dir),
                (self.mirrored, self.cache_dir / _MIRRORED),
            )
        )
        return np.stack(list(seen))
