"""The photos of a simulation: the initial labels, the stream of each round, and the evaluation sets."""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.learning.drift import degraded
from cloud.dataset.example import Example
from cloud.labeling.embedder import Embedder
from cloud.modeling.arrays import Ints
from cloud.modeling.backbones import EFFICIENTNET_LITE0, EFFICIENTNET_LITE0_GRID
from cloud.progress import Progress
from cloud.training.embeddings import embeddings
from edge.harvest.shrinking.image import dhash, shrink
from schemas.class_names import NEITHER
from schemas.codec import content_id

CLASSES = ("cat", "dog")
OTHER = -1
"""Index of a photo that shows neither class."""

PLAIN, MIRRORED, DIM = range(3)
"""Indices of the three embeddings of a photo."""
GRID_PLAIN, GRID_DIM = range(2)
"""Indices of its two embeddings by the second network that is tried."""

_LABELLED = 40
_GATE = 200
_ROUNDS = 5
_OTHER_SHARE = 0.15
Vectors = NDArray[np.float32]

STRENGTHS: dict[str, tuple[float, ...]] = {
    "plain": (0.0,) * _ROUNDS,
    "drift": (0.0, 0.2, 0.4, 0.6, 0.8),
    "other": (0.0,) * _ROUNDS,
}
"""Strength of the drift in each round, by scenario."""


def human_label(truth: int, classes: Sequence[str] = CLASSES) -> str:
    """Return the label that a person gives."""
    return NEITHER if truth == OTHER else classes[truth]


@dataclass(frozen=True, slots=True)
class Photos:
    """Photos as embeddings.

    Attributes:
        ids: `[N]`, 32 hex digits each.
        sights: `[3, N, D]`, embeddings of the photos, of their mirror images and of dimmed copies.
        truth: `[N]`, class index, or `OTHER`.
        views: `[N]`, difference hashes.
        devices: `[N]`, names of the cameras; empty if the policies are to spread them over several.
        grid: `[2, N, D']`, embeddings of the photos and of dimmed copies by the network that is tried beside
            the first one; None if there is none.
    """

    ids: list[str]
    sights: Vectors
    truth: Ints
    views: list[int]
    devices: list[str] = field(default_factory=list)
    grid: Vectors | None = None

    @property
    def vectors(self) -> Vectors:
        """Embeddings of the plain photos, `[N, D]`."""
        return np.asarray(self.sights[PLAIN])

    def vectors_of(self, backbone: str) -> Vectors:
        """Return the embeddings of the plain photos by one of the two networks."""
        if backbone == EFFICIENTNET_LITE0.name:
            return self.vectors
        assert self.grid is not None
        return np.asarray(self.grid[GRID_PLAIN])

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Round:
    """The stream of a round, and the gold photos with the same drift."""

    stream: Photos
    gold: Photos


@dataclass(frozen=True, slots=True)
class World:
    """All photos of a simulation.

    Attributes:
        labelled: photos with human labels before the first version.
        gate: the fixed gold set of the gate; policies are evaluated on other photos.
        rounds: the rounds in order.
        classes: names of the classes.
    """

    labelled: Photos
    gate: Photos
    rounds: list[Round]
    classes: tuple[str, ...] = CLASSES


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """A photo on disk: its split or its device, and its class index."""

    path: Path
    split: str
    truth: int


@dataclass(frozen=True, slots=True)
class _EmbeddedPhoto:
    photo_id: str
    sight: Vectors
    grid: Vectors
    view: int


class PhotoEmbedder:
    """Embeds each photo once per strength of drift.

    Args:
        cache: Embedding cache on disk.
        progress: Shows the progress of embedding.
    """

    def __init__(self, cache: Path, progress: Progress) -> None:
        self._cache = cache
        self._progress = progress
        self._embedder = Embedder.open(EFFICIENTNET_LITE0.name, cache)
        self._grid = EFFICIENTNET_LITE0_GRID.build()
        self._embedded: dict[tuple[PhotoFile, float], _EmbeddedPhoto] = {}

    def photos(self, files: Sequence[PhotoFile], strength: float) -> Photos:
        """Return photos with a strength of drift."""
        self._embed([file for file in files if (file, strength) not in self._embedded], strength)
        seen = [self._embedded[file, strength] for file in files]
        return Photos(
            ids=[one.photo_id for one in seen],
            sights=np.stack([one.sight for one in seen], axis=1),
            truth=np.array([file.truth for file in files], np.int64),
            views=[one.view for one in seen],
            grid=np.stack([one.grid for one in seen], axis=1),
        )

    def _embed(self, files: Sequence[PhotoFile], strength: float) -> None:
        """Embed photos after the edge's downscaling for samples."""
        if not files:
            return
        images = [degraded(file.path.read_bytes(), strength, _seed(file.path)) for file in files]
        known = [Example("", shrink(image).image, "", "human") for image in images]
        seen = self._embedder.embed(known, self._progress)
        plan, network = self._embedder.backbone, self._embedder.network
        dim = embeddings(known, plan, network, self._cache, self._progress, dim=True)
        grids = np.stack(
            [
                embeddings(
                    known, EFFICIENTNET_LITE0_GRID, self._grid, self._cache, self._progress, dim=dimmed
                )
                for dimmed in (False, True)
            ],
            axis=1,
        )
        sights = np.stack([*seen, dim], axis=1)
        for file, image, sight, grid in zip(files, images, sights, grids, strict=True):
            photo_id = content_id(image)
            self._embedded[file, strength] = _EmbeddedPhoto(photo_id, sight, grid, dhash(image))


class Worlds:
    """Create worlds of cats and dogs.

    Args:
        photos: Folder with `manifest.csv`.
        embedder: Embeds the photos.
    """

    def __init__(self, photos: Path, embedder: PhotoEmbedder) -> None:
        self._files = list(_files(photos))
        self._photos = embedder.photos

    def make(self, scenario: str, seed: int) -> World:
        """Return the world of a scenario; the seed decides which photos are labelled, and the order."""
        draw = np.random.default_rng(seed)
        train = [self._of("train", truth, draw) for truth in range(len(CLASSES))]
        each = _LABELLED // len(CLASSES), _GATE // len(CLASSES)
        labelled = [file for files in train for file in files[: each[0]]]
        gate = [file for files in train for file in files[each[0] : sum(each)]]
        stream = [file for truth in range(len(CLASSES)) for file in self._of("stream", truth, draw)]
        stream = [stream[position] for position in draw.permutation(len(stream))]
        if scenario == "other":
            others = self._of("other", OTHER, draw)
            pets = stream[: round(len(others) / _OTHER_SHARE) - len(others)]
            stream = [*pets, *others]
            stream = [stream[position] for position in draw.permutation(len(stream))]
        strengths = STRENGTHS[scenario]
        shares = np.array_split(np.arange(len(stream)), len(strengths))
        gold = [file for truth in range(len(CLASSES)) for file in self._of("gold", truth, draw)]
        return World(
            labelled=self._photos(labelled, 0.0),
            gate=self._photos(gate, 0.0),
            rounds=[
                Round(
                    self._photos([stream[position] for position in share], strength),
                    self._photos(gold, strength),
                )
                for share, strength in zip(shares, strengths, strict=True)
            ],
        )

    def _of(self, split: str, truth: int, draw: np.random.Generator) -> list[PhotoFile]:
        files = [file for file in self._files if (file.split, file.truth) == (split, truth)]
        return [files[position] for position in draw.permutation(len(files))]


def _files(photos: Path) -> Iterator[PhotoFile]:
    with (photos / "manifest.csv").open(encoding="utf-8", newline="") as manifest:
        for row in csv.DictReader(manifest):
            truth = CLASSES.index(row["label"]) if row["label"] in CLASSES else OTHER
            yield PhotoFile(photos / row["path"], row["split"], truth)


def _seed(path: Path) -> int:
    return int.from_bytes(hashlib.blake2b(path.name.encode(), digest_size=4).digest(), "little")
