"""Fuzzing targets: every function that parses bytes from outside, with the rule that it has to keep.

The first byte of an input selects the target, the rest is its argument. A violated rule raises
AssertionError; an exception that the target may not raise propagates.
"""

from collections.abc import Callable

from edge.harvest.shrinking.image import dhash, shrink
from edge.inference.validation import PhotoLimits, validate
from schemas.codec import decode, encode
from schemas.errors import CodecError
from schemas.image import ImageError, inspect_image
from schemas.messages import Message, Photo
from schemas.topics import TOPICS, Topic, find
from tests.pictures.comparison import compare

NAMES = {"node": "edge-1", "device": "pi-1", "name": "pi-1"}
LIMITS = PhotoLimits(max_photo_bytes=3 * 1024 * 1024, max_pixels=16_000_000)


def read_message(topic: Topic[Message], payload: bytes) -> None:
    """A payload is a message or a CodecError; a message is the same after encoding and decoding it."""
    names = {name: NAMES[name] for name in topic.names}
    try:
        message = decode(topic, payload, names)
    except CodecError:
        return
    assert decode(topic, encode(topic, message), names) == message


def take_photo(payload: bytes) -> None:
    """A payload on the photo topic is a photo within the limits, or a rejection with a reason."""
    place = {"node": "edge-1", "device": "pi-1"}
    said = validate(payload, place, LIMITS, now_ms=1)
    photo = said if isinstance(said, Photo) else said.photo
    assert photo.photo_id
    if isinstance(said, Photo):
        assert len(photo.image) <= LIMITS.max_photo_bytes
        read_image(photo.image)


def read_image(image: bytes) -> None:
    """An image is refused, or every decoder reads it alike, and it has a hash and a thumbnail."""
    compare(image)
    try:
        facts = inspect_image(image)
        assert 0 <= dhash(image) < 1 << 64
        assert min(shrink(image)[1:]) <= facts.pixels
    except ImageError:
        return


def read_topic(name: bytes) -> None:
    """A string is not a topic of the contract, or it is exactly the topic that the contract builds."""
    topic = name.decode(errors="surrogateescape")
    if (found := find(topic)) is not None:
        kind, names = found
        assert kind.name(**names) == topic


TARGETS: tuple[Callable[[bytes], None], ...] = (
    *(lambda payload, topic=topic: read_message(topic, payload) for topic in TOPICS),
    take_photo,
    read_image,
    read_topic,
)


def run(data: bytes) -> None:
    """Call the target that the first byte selects."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])
