"""Synthetic photos of cats and dogs, for demonstrations and tests without a camera."""

from demo.synthetic.collection import SPLITS, draw_collection, seed_of
from demo.synthetic.photo import LOOKS, Look, draw
from demo.synthetic.traits import CLASSES

__all__ = ["CLASSES", "LOOKS", "SPLITS", "Look", "draw", "draw_collection", "seed_of"]
