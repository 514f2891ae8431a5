"""Worlds of meters: ten digits, and a device that was never seen before in each round."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.learning.world import PhotoEmbedder, PhotoFile, Photos, Round, World

CLASSES = tuple("0123456789")

_ROUNDS = 5
_LABELLED_PER_CLASS = 4
_GATE = 200
_MAX_GOLD = 200
_MAX_STREAM = 300
_MIN_PHOTOS = 90
"""Photos of a device that is used: with fewer, its accuracy would be too uncertain."""


class MeterWorlds:
    """Create worlds of meters.

    Args:
        photos: Folder with `manifest.csv`, which has the columns path, label and device.
        embedder: Embeds the photos.
    """

    def __init__(self, photos: Path, embedder: PhotoEmbedder) -> None:
        with (photos / "manifest.csv").open(encoding="utf-8", newline="") as manifest:
            files = [
                PhotoFile(photos / row["path"], row["device"], CLASSES.index(row["label"]))
                for row in csv.DictReader(manifest)
            ]
        counts = Counter(file.split for file in files)
        self._devices = sorted(device for device, count in counts.items() if count >= _MIN_PHOTOS)
        self._files = files
        self._embedder = embedder

    def make(self, seed: int) -> World:
        """Return a world; the seed decides the order of the devices and which photos are labelled."""
        draw = np.random.default_rng(seed)
        first = draw.choice([device for device in self._devices if self._has_all_classes(device)])
        labelled, rest = self._split_first(self._of(first, draw))
        others = [device for device in self._devices if device != first]
        return World(
            labelled=self._photos(labelled),
            gate=self._photos(rest[:_GATE]),
            rounds=[
                self._round(self._of(others[at], draw)) for at in draw.permutation(len(others))[:_ROUNDS]
            ],
            classes=CLASSES,
        )

    def _has_all_classes(self, device: str) -> bool:
        counts = Counter(file.truth for file in self._files if file.split == device)
        # As many again: the gate needs photos of each class too.
        return min(counts[truth] for truth in range(len(CLASSES))) >= 2 * _LABELLED_PER_CLASS

    def _of(self, device: str, draw: np.random.Generator) -> list[PhotoFile]:
        files = [file for file in self._files if file.split == device]
        return [files[position] for position in draw.permutation(len(files))]

    def _split_first(self, files: Sequence[PhotoFile]) -> tuple[list[PhotoFile], list[PhotoFile]]:
        """Return the photos that are labelled at the start, equally many of each class, and the others."""
        labelled = [
            file
            for truth in range(len(CLASSES))
            for file in [file for file in files if file.truth == truth][:_LABELLED_PER_CLASS]
        ]
        return labelled, [file for file in files if file not in labelled]

    def _round(self, files: Sequence[PhotoFile]) -> Round:
        third = len(files) // 3
        return Round(self._photos(files[third:][:_MAX_STREAM]), self._photos(files[:third][:_MAX_GOLD]))

    def _photos(self, files: Sequence[PhotoFile]) -> Photos:
        return replace(self._embedder.photos(files, 0.0), devices=[file.split for file in files])
