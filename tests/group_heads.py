"""Heads of groups for the tiny model of `tests/serving.py`, whose embedding is the mean colour."""

from pathlib import Path

from schemas.groups.heads import HEADS_FILE, GroupHead, encode_heads, group_heads, pack_kernel
from tests.serving import CLASSES

# Twice the weights of the model with the other sign: red is then a dog, and blue a cat.
_ROWS = [[-24.0, 0.0, 24.0], [24.0, 0.0, -24.0]]
MIRROR = GroupHead(*pack_kernel(_ROWS), [0.0, 0.0])
"""Swaps cat and dog."""


def add_heads(model: Path, *groups: str, dim: int = 3) -> None:
    """Add a file of heads to a SavedModel: `MIRROR` for each group, for embeddings of `dim` numbers."""
    (model / HEADS_FILE).parent.mkdir(exist_ok=True)
    kernel, scale = pack_kernel([[*row, *[0.0] * (dim - 3)] for row in _ROWS])
    heads = group_heads(CLASSES, dim, dict.fromkeys(groups, GroupHead(kernel, scale, [0.0, 0.0])))
    (model / HEADS_FILE).write_bytes(encode_heads(heads))
