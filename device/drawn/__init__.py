"""Procedural cats and dogs, for demonstrations and tests that need photos without a camera."""

from device.drawn.collection import SPLITS, seed_of, write_collection
from device.drawn.photo import LOOKS, Look, draw
from device.drawn.traits import CLASSES

__all__ = ["CLASSES", "LOOKS", "SPLITS", "Look", "draw", "seed_of", "write_collection"]
