"""Rules of schemas/litert/resizing.py: Pillow's filter on floats, in products of matrices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from schemas.litert import resizing
from schemas.litert.resizing import resized

LEAST = 0.002


def pixels(columns: int, rows: int) -> NDArray[np.uint8]:
    return np.random.default_rng(columns * rows).integers(0, 256, (rows, columns, 3), np.uint8)


def by_pillow(photo: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float32]:
    """Resize each channel as an image of floats, whose means Pillow computes in double precision."""
    channels = [Image.fromarray(photo[..., number].astype(np.float32)) for number in range(3)]
    size, by = (width, height), Image.Resampling.BILINEAR
    return np.stack([np.asarray(channel.resize(size, by)) for channel in channels], axis=-1)


def resize(photo: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float32]:
    return resized(Image.fromarray(photo), width, height)


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_any_size_becomes_any_other(columns: int, rows: int, width: int, height: int) -> None:
    """Larger or smaller in each direction: the values are Pillow's to 0.002 of 255."""
    photo = pixels(columns, rows)
    assert np.abs(resize(photo, width, height) - by_pillow(photo, width, height)).max() < LEAST


@pytest.mark.parametrize(("columns", "rows"), [(640, 480), (5000, 12), (12, 5000), (20_000, 3), (2600, 2100)])
def test_photos_larger_than_what_is_kept(columns: int, rows: int) -> None:
    """Also where the first pass is cut into several strips, or weights are not kept."""
    photo = pixels(columns, rows)
    assert np.abs(resize(photo, 224, 224) - by_pillow(photo, 224, 224)).max() < LEAST


def test_flat_photos_stay_flat() -> None:
    """The weights of a pixel are 1 together, at the borders too."""
    photo = np.full((37, 53, 3), (255, 128, 1), np.uint8)
    assert np.abs(resize(photo, 224, 160) - (255, 128, 1)).max() < LEAST


def test_weights_that_are_kept_are_few() -> None:
    """A sender who varies the size of photos does not fill the memory: at most 24 MB."""
    most = resizing._computed(resizing._KEPT_PX, 224, 3)
    assert resizing._KEPT_SIDES * sum(block.weights.nbytes for block in most) < 24e6
    before = resizing._kept.cache_info().currsize
    resize(pixels(1, resizing._KEPT_PX + 1), 8, 8)
    assert resizing._kept.cache_info().currsize <= before + 1  # of its one column
