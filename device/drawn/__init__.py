"""Procedural cats and dogs, for demonstrations and tests that need photos without a camera."""

from device.drawn.collection import SPLITS, draw_collection, seed_of
from device.drawn.photo import LOOKS, Look, draw
from device.drawn.traits import CLASSES

__all__ = ["CLASSES", "LOOKS", "SPLITS", "Look", "draw", "draw_collection", "seed_of"]
