"""Compare all decoders on mutated pictures: `make fuzz-pictures MINUTES=10 SEED=1`."""

import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cloud.modeling.decoding import decode_stored, read_orientation, turn_upright
from tests.pictures.comparison import compare
from tests.pictures.mutations import mutated
from tests.pictures.odd import odd_pictures

SLOW_S = 1.0
FAILURES = Path(".cache/pictures")


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _upright(photo: tf.Tensor) -> tf.Tensor:
    return turn_upright(decode_stored(photo), read_orientation(photo))


def graph(photo: bytes) -> NDArray[np.uint8]:
    """Decode as the exported graph does.

    Raises:
        ValueError: It cannot.
    """
    try:
        pixels: NDArray[np.uint8] = _upright(tf.constant(photo)).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(str(error)) from error
    return pixels


def main(seconds: float, seed: int) -> int:
    """Compare until the time is over; write what differs to files, and return its number."""
    warnings.simplefilter("ignore")  # of Pillow, about the pictures
    for image in odd_pictures().values():
        compare(image, graph)
    outcomes, end = Counter[str](), time.monotonic() + seconds
    for name, image in mutated(seed):
        started = time.monotonic()
        if started > end:
            break
        try:
            outcome = compare(image, graph)
        except (AssertionError, ValueError) as error:
            outcome = "DIFFERS"
            _report(f"{seed}-{sum(outcomes.values())}", image, f"{name}: {error}")
        if time.monotonic() - started > SLOW_S:
            outcome = "SLOW"
            _report(f"{seed}-{sum(outcomes.values())}", image, f"{name}: {time.monotonic() - started:.1f} s")
        outcomes[outcome] += 1
    print(f"seed {seed}: {sum(outcomes.values())} pictures, {dict(outcomes)}")
    return outcomes["DIFFERS"]


def _report(name: str, image: bytes, reason: str) -> None:
    FAILURES.mkdir(parents=True, exist_ok=True)
    (FAILURES / name).write_bytes(image)
    print(f"{FAILURES / name}: {reason}")


if __name__ == "__main__":
    sys.exit(min(1, main(60 * float(sys.argv[1]), int(sys.argv[2]))))
