"""Compare all decoders on mutated pictures: `make fuzz-pictures MINUTES=10 SEED=1`.

Where TensorFlow is not installed, the others are compared without the exported graph.
"""

import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.pictures.comparison import Graph, compare
from tests.pictures.mutations import mutated
from tests.pictures.odd import odd_pictures

SLOW_S = 1.0
FAILURES = Path(".cache/pictures")


def _graph() -> Graph | None:
    """Return a function that decodes as the exported graph does; None without TensorFlow."""
    try:
        import tensorflow as tf  # noqa: PLC0415  # it may be missing
    except ModuleNotFoundError:
        return None
    from cloud.modeling.decoding import decode_stored, read_orientation, turn_upright  # noqa: PLC0415  # the same

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def upright(photo: tf.Tensor) -> tf.Tensor:
        return turn_upright(decode_stored(photo), read_orientation(photo))

    def decode(photo: bytes) -> object:
        try:
            return upright(tf.constant(photo)).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(str(error)) from error

    return decode


def main(seconds: float, seed: int) -> int:
    """Compare until the time is over; write what differs to files, and return its number."""
    warnings.simplefilter("ignore")  # of Pillow, about the pictures
    graph = _graph()
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
    decoders = "without TensorFlow" if graph is None else "with TensorFlow"
    print(f"seed {seed}, {decoders}: {sum(outcomes.values())} pictures, {dict(outcomes)}")
    return outcomes["DIFFERS"]


def _report(name: str, image: bytes, reason: str) -> None:
    FAILURES.mkdir(parents=True, exist_ok=True)
    (FAILURES / name).write_bytes(image)
    print(f"{FAILURES / name}: {reason}")


if __name__ == "__main__":
    sys.exit(min(1, main(60 * float(sys.argv[1]), int(sys.argv[2]))))
