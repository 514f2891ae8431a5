"""Embeddings of the photos of each group of devices, labelled or not, as their samples carry them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.dataset.store import Store
from cloud.modeling.kernels import is_usable
from cloud.registry.model_card import Card

MAX_PHOTOS = 300
"""Most photos of a device that are read, the newest first: they give mean and scale of its embeddings."""


@dataclass(frozen=True, slots=True)
class Sightings:
    """Embeddings by name and digest of the network, then by group.

    Attributes:
        found: each `[N, D]`.
    """

    found: Mapping[tuple[str, str], Mapping[str, NDArray[np.float32]]]

    def by(self, backbone: str, digest: str) -> Mapping[str, NDArray[np.float32]]:
        """Return the embeddings by one network, by group."""
        return self.found.get((backbone, digest), {})


def read_sightings(
    store: Store, cards: Sequence[Card], groups: Mapping[tuple[str, str], str], version: int | None = None
) -> Sightings:
    """Read the embeddings of the newest photos of each device in a group, the gold set apart.

    Args:
        store: The dataset.
        cards: Of all versions: they name the network that embedded a sample.
        groups: By node and name of the device.
        version: Of the dataset, None for the newest.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    networks = {card.version: (card.backbone, card.weights_digest) for card in cards}
    found: defaultdict[tuple[str, str], defaultdict[str, list[NDArray[np.float32]]]]
    found = defaultdict(lambda: defaultdict(list))
    for (node, device), group in sorted(groups.items()):
        # Names have letters, digits and hyphens alone.
        where = f"embedding IS NOT NULL AND split != 'gold' AND node = '{node}' AND device = '{device}'"
        rows = store.scan(
            ["embedding", "model_version"],
            where=where,
            version=version,
            limit=MAX_PHOTOS,
            order=["-received_at_ms", "photo_id"],
        )
        for row in rows:
            vector = np.array(row["embedding"], np.float32)
            network = networks.get(_number(row["model_version"]))
            if network is not None and is_usable(vector):
                found[network][group].append(vector)
    return Sightings(
        {
            network: {group: _of_one_length(vectors) for group, vectors in by_group.items()}
            for network, by_group in found.items()
        }
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _of_one_length(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.stack([vector for vector in vectors if len(vector) == len(vectors[0])])
