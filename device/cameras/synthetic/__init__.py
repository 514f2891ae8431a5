"""Procedural cats and dogs, for demonstrations and tests that need photos without a camera."""

from device.cameras.synthetic.collection import SPLITS, draw_collection, seed_of
from device.cameras.synthetic.photo import LOOKS, Look, draw
from device.cameras.synthetic.traits import CLASSES

__all__ = ["CLASSES", "LOOKS", "SPLITS", "Look", "draw", "draw_collection", "seed_of"]
