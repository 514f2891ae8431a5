"""Preprocessing by name."""

import numpy as np
import pytest

from cloud.modeling.adopted.preprocessing import AdoptionError, Preprocessing, parse_preprocessing

PIXELS = np.array([[[[255.0, 0.0, 127.5]]]], np.float32)  # red, green, blue


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("raw", [255, 0, 127.5]),
        ("unit", [1, 0, 0.5]),
        ("signed", [1, -1, 0]),
        ("signed,order=bgr", [0, -1, 1]),
        ("offset=127.5,scale=127.5", [1, -1, 0]),
        ("imagenet", [(255 - 123.675) / 58.395, -116.28 / 57.12, (127.5 - 103.53) / 57.375]),
        ("caffe", [127.5 - 103.939, -116.779, 255 - 123.68]),
        ("raw,order=gray", [255 * 0.299 + 127.5 * 0.114]),
    ],
)
def test_values(text: str, expected: list[float]) -> None:
    """A preset or numbers give the values that the network expects, in its order of channels."""
    assert parse_preprocessing(text).apply(PIXELS).ravel() == pytest.approx(expected, abs=1e-4)


def test_sizes() -> None:
    """A size is one number, or width and height; it is kept as height and width."""
    assert parse_preprocessing("unit,size=224").size_px == (224, 224)
    assert parse_preprocessing("size=320x240") == Preprocessing(size_px=(240, 320))


@pytest.mark.parametrize(
    "text",
    [
        "", "RAW", "unit,", "unit,size", "size=0", "size=5000", "size=1x2x3", "size=-3", "size=²", "scale=0",
        "scale=1/0/1", "scale=nan", "offset=inf", "offset=a", "offset=1/2", "order=rbg",
        "imagenet,order=gray", "unit,colour=rgb", "torch",
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    """Any wrong text gives one error message that begins with `preprocessing`."""
    with pytest.raises(AdoptionError, match=r"^preprocessing.*: expected .*, got "):
        parse_preprocessing(text)
