"""Bound the memory of all images that are being decoded in the process, whatever calls they belong to."""

import os
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Condition

from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array
from schemas.image import ImageError, ImageFacts, read_header

PER_PROCESSOR_BYTES = 128 * 1024 * 1024
"""Default for each processor: a JPEG of 16 megapixels."""

LONGEST_WAIT_S = 60.0
"""Of a call without a deadline."""

_SECOND_PICTURE_BYTES = 5  # of a pixel: pictures in memory have 4 bytes, and a step has a new one beside it
_PARALLEL_ITERATIONS = 10  # of `tf.map_fn`: so many images of a call are decoded at once
_GRAPH_PNG_BYTES = 7  # of a pixel: decoded with four channels, and without the fourth
_GRAPH_ALPHA_BYTES = 24  # of a pixel: the arithmetic of 16 bits that composes it with the background
_IMAGES = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n")
_DEADLINE_SHARE = 0.9  # the client of a call that waits longer has gone before it could read the reason
_SMALL = 16  # an image is small if that many fit
_KEPT_FOR_SMALL = 8  # one in so many bytes


def default_bytes(largest_bytes: int) -> int:
    """Return the default bound.

    Args:
        largest_bytes: memory of the largest image that is accepted.
    """
    return max(largest_bytes, PER_PROCESSOR_BYTES * len(os.sched_getaffinity(0)))


def pillow_bytes(facts: ImageFacts) -> int:
    """Return about the most memory that Pillow takes until an image is the input of a network."""
    return facts.decoded_bytes + _SECOND_PICTURE_BYTES * facts.pixels


def graph_bytes(feeds: Mapping[str, Array]) -> int:
    """Return about the most memory that decoding the images of a call takes in a graph of this project.

    Args:
        feeds: tensor name to value; images of other strings, such as a tf.Example, are found too.
    """
    sizes: list[int] = []
    for array in feeds.values():
        if array.dtype == object:
            for value in array.reshape(-1).tolist():
                if isinstance(value, bytes):
                    sizes += (_in_graph(value[found.start() :]) for found in _IMAGES.finditer(value))
    return sum(sorted(sizes)[-_PARALLEL_ITERATIONS:])


def _in_graph(image: bytes) -> int:
    try:
        facts = read_header(image)
    except ImageError:  # nothing is decoded of it
        return 0
    if facts.format == "jpeg":
        return facts.decoded_bytes
    return facts.pixels * (_GRAPH_PNG_BYTES + _GRAPH_ALPHA_BYTES * facts.has_alpha)


class DecodingMemory:
    """Hands out memory for images, in the order of arrival; thread-safe.

    An image that needs more than there is gets all of it, and is decoded alone. Large images leave an eighth
    of the memory to small ones, which overtake them: photos of usual size do not wait for the largest.

    Args:
        max_bytes: of all images in progress.
        max_waiting: large images that may wait; each occupies a thread.
    """

    def __init__(self, max_bytes: int, max_waiting: int) -> None:
        self._max_bytes = max_bytes
        self._for_large = max_bytes - max_bytes // _KEPT_FOR_SMALL
        self._max_waiting = max_waiting
        self._changed = Condition()
        self._used = 0
        self._large = 0
        self._waiting: deque[object] = deque()

    @property
    def used_bytes(self) -> int:
        """Memory of the images in progress."""
        return self._used

    @contextmanager
    def taken(self, size_bytes: int, deadline_s: float | None) -> Iterator[None]:
        """Wait for memory; it is free again when the block ends.

        Args:
            size_bytes: memory of the image.
            deadline_s: of its caller, on the monotonic clock; None for none.

        Raises:
            ServingError: RESOURCE_EXHAUSTED if there is none within nine tenths of the time left, or too many
                wait already.
        """
        now_s = time.monotonic()
        left_s = LONGEST_WAIT_S if deadline_s is None else _DEADLINE_SHARE * (deadline_s - now_s)
        is_large = size_bytes * _SMALL > self._max_bytes
        share = min(size_bytes, self._for_large)
        with self._changed:
            if is_large:
                self._wait_in_turn(share, left_s)
                self._large += share
            elif not self._changed.wait_for(lambda: self._used + share <= self._max_bytes, left_s):
                raise self._refusal(size_bytes)
            self._used += share
        try:
            yield
        finally:
            with self._changed:
                self._used -= share
                self._large -= share * is_large
                self._changed.notify_all()

    def _wait_in_turn(self, share: int, left_s: float) -> None:
        if len(self._waiting) >= self._max_waiting:
            raise self._refusal(share)
        ticket = object()
        self._waiting.append(ticket)
        try:
            if not self._changed.wait_for(lambda: self._is_next(ticket, share), left_s):
                raise self._refusal(share)
        finally:
            self._waiting.remove(ticket)
            self._changed.notify_all()  # the next one may fit as well

    def _is_next(self, ticket: object, share: int) -> bool:
        fits = self._used + share <= self._max_bytes and self._large + share <= self._for_large
        return fits and self._waiting[0] is ticket

    def _refusal(self, size_bytes: int) -> ServingError:
        return ServingError(
            Code.RESOURCE_EXHAUSTED,
            f"no memory for the {size_bytes} bytes that decoding takes: {self._used} of {self._max_bytes} "
            f"are in use, and {len(self._waiting)} large images wait; send it again later",
        )
