"""Drawn photos of cats and dogs: varied, repeatable, and free to ship."""

from device.drawn.photo import LOOKS, SPLITS, Look, draw, seed_of, write_dataset
from device.drawn.traits import CLASSES

__all__ = ["CLASSES", "LOOKS", "SPLITS", "Look", "draw", "seed_of", "write_dataset"]
