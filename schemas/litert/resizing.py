"""Resize a photo as the exported graph does, by products of small matrices.

Each row of the result is a weighted mean of a few rows of the photo, and then each column of a few columns.
Some rows at a time are the product of a small matrix and a strip of the photo, for which NumPy's BLAS has
vector code; Pillow has none for floats.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

_CHANNELS = 3
_OUTPUTS = 8
"""Rows or columns of the result for a product: few cost calls, many cost products with zeros."""

_KEPT_PX = 2048
"""Longest side for which weights are kept, 1 MB at most; for larger photos decoding takes longer."""

_KEPT_SIDES = 16
_BETWEEN_VALUES = 131_072
"""Of rows that wait for the second pass: half a megabyte, which stays in the cache of a core."""


class _Block(NamedTuple):
    """Rows `start` to `stop` of the result, made of rows `low` to `high` of the photo; or columns."""

    start: int
    stop: int
    low: int
    high: int
    weights: Floats


def resized(picture: Image.Image, width: int, height: int) -> Floats:
    """Resize RGB to float32 `[height, width, 3]` as `tf.image.resize(…, "bilinear", antialias=True)`.

    The values differ from TensorFlow's by less than 0.01 of 255.
    """
    columns, rows = picture.size
    values = columns * _CHANNELS
    down, across = _weights(rows, height, 1), _weights(columns, width, _CHANNELS)
    result = np.empty((height, width * _CHANNELS), np.float32)
    strip = np.empty((max(block.high - block.low for block in down), values), np.float32)
    some = max(1, _BETWEEN_VALUES // (_OUTPUTS * values))
    between = np.empty((min(some * _OUTPUTS, height), values), np.float32)
    for number in range(0, len(down), some):
        top, bottom = down[number].start, down[min(number + some, len(down)) - 1].stop
        for block in down[number : number + some]:
            taken = strip[: block.high - block.low]
            # An array of the whole picture would take its memory twice more.
            rows_of_block = picture.crop((0, block.low, columns, block.high))
            taken[:] = np.asarray(rows_of_block).reshape(taken.shape)
            np.matmul(block.weights, taken, out=between[block.start - top : block.stop - top])
        for block in across:
            taken = between[: bottom - top, block.low : block.high]
            np.matmul(taken, block.weights.T, out=result[top:bottom, block.start : block.stop])
    return result.reshape(height, width, _CHANNELS)


def _weights(size: int, wanted: int, channels: int) -> tuple[_Block, ...]:
    return (_kept if size <= _KEPT_PX else _computed)(size, wanted, channels)


def _computed(size: int, wanted: int, channels: int) -> tuple[_Block, ...]:
    """Return the weights of a triangle filter, of a side whose pixels have interleaved channels."""
    reach = max(1.0, size / wanted)
    centres = (np.arange(wanted) + 0.5) * (size / wanted)
    blocks = []
    for start in range(0, wanted, _OUTPUTS):
        some = centres[start : start + _OUTPUTS]
        low, high = max(0, math.floor(some[0] - reach)), min(size, math.ceil(some[-1] + reach))
        distances = np.abs(np.arange(low, high) + 0.5 - some[:, np.newaxis])
        weights = np.maximum(0.0, 1.0 - distances / reach)
        weights /= weights.sum(axis=1, keepdims=True)
        each = np.kron(weights, np.eye(channels)).astype(np.float32)
        first, last, left, right = (at * channels for at in (start, start + len(some), low, high))
        blocks.append(_Block(first, last, left, right, each))
    return tuple(blocks)


_kept = lru_cache(_KEPT_SIDES)(_computed)
