"""Rules of edge/modelserver/runtimes/decoding_memory.py: a bound of all images that are being decoded."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Event

import numpy as np
import pytest
from PIL import Image

from edge.modelserver.runtimes.decoding_memory import DecodingMemory, graph_bytes, pillow_bytes
from edge.modelserver.status import Code, ServingError
from schemas.image import read_header
from tests.conftest import DEADLINE_S
from tests.pictures.odd import encoded

MAX, WAITING = 1600, 3


@contextmanager
def holding(memory: DecodingMemory, *sizes: int) -> Iterator[None]:
    with ExitStack() as held:
        for size in sizes:
            held.enter_context(memory.taken(size, None))
        yield


def in_s(seconds: float) -> float:
    return time.monotonic() + seconds


def test_g3_beyond_the_bound_an_image_waits_until_its_deadline_approaches() -> None:
    """The refusal says how much is in use; before, an image waits for as long as its call can."""
    memory = DecodingMemory(MAX, WAITING)
    with holding(memory, 1000):
        with (
            pytest.raises(ServingError, match=f"1000 of {MAX} are in use") as caught,
            late(memory, 700),
        ):
            pass
        assert caught.value.code == Code.RESOURCE_EXHAUSTED
    with memory.taken(700, in_s(0)):
        assert memory.used_bytes == 700
    assert memory.used_bytes == 0


@contextmanager
def late(memory: DecodingMemory, size: int) -> Iterator[None]:
    with memory.taken(size, in_s(0.02)):
        yield


def test_g3_large_images_have_their_turns_in_order_and_never_exceed_the_bound() -> None:
    """Each waits for the one before, also where a later one would fit."""
    memory, order, held = DecodingMemory(MAX, 8), [], Event()

    def decode(number: int, size: int) -> None:
        with memory.taken(size, in_s(DEADLINE_S)):
            assert memory.used_bytes <= MAX
            order.append(number)

    with ThreadPoolExecutor(4) as pool:
        calls: list[Future[None]] = []
        with holding(memory, 1000):
            for number, size in enumerate((1400, 300, 1400, 300)):
                calls.append(pool.submit(decode, number, size))
                while len(memory._waiting) <= number:
                    held.wait(0.001)
            assert not order
        for call in calls:
            call.result(DEADLINE_S)
    assert order == [0, 1, 2, 3]


def test_g4_a_usual_photo_overtakes_the_largest() -> None:
    """However many large images wait, an eighth of the memory is for small ones."""
    memory = DecodingMemory(MAX, WAITING)
    with ThreadPoolExecutor(WAITING) as pool, ExitStack() as rest:
        with holding(memory, 10 * MAX):
            calls = [pool.submit(rest.enter_context, memory.taken(MAX, in_s(1.0))) for _ in range(2)]
            while len(memory._waiting) < len(calls):
                Event().wait(0.001)
            with memory.taken(MAX // 16, in_s(0)):
                pass
        for call in calls:
            call.exception(DEADLINE_S)  # one gets all the memory, the other none


def test_g3_only_so_many_large_images_wait() -> None:
    """Each occupies a thread of the server, and the others have to be answered."""
    memory = DecodingMemory(MAX, 0)
    with pytest.raises(ServingError, match="send it again later"), memory.taken(1000, None):
        pass


def test_what_an_image_takes() -> None:
    """The estimate grows with what each way of decoding keeps: coefficients, alpha, images of one call."""
    size = (400, 300)
    plain, alpha = encoded(Image.new("RGB", size)), encoded(Image.new("RGBA", size), "PNG")
    progressive = encoded(Image.new("RGB", size), progressive=True)
    assert pillow_bytes(read_header(progressive)) > pillow_bytes(read_header(plain)) > 4 * 400 * 300

    def feed(*values: object) -> dict[str, np.ndarray]:
        array = np.empty(len(values), object)
        array[:] = values
        return {"image": array}

    one = graph_bytes(feed(plain))
    assert one == 3 * 400 * 300
    assert graph_bytes(feed(plain, b"in an example " + plain)) == 2 * one
    assert graph_bytes(feed(*[plain] * 30)) == 10 * one  # no more are decoded at once
    assert graph_bytes(feed(alpha)) > 5 * one
    assert graph_bytes({"x": np.zeros(3)}) == graph_bytes(feed(b"text", "text", plain[:30])) == 0
