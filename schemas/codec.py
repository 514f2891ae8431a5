"""Bytes to messages and back: the boundary at which everything from outside is checked.

Bytes ride in msgpack, everything else is JSON, and a reader accepts either for any message, because the
first byte tells: `{` is JSON, `FF D8` and `89 50 4E 47` are images, anything else has to be a msgpack map.

For any input at all: `decode` raises nothing but `CodecError`, takes linear time, and uses at most about 100
bytes of memory for a byte of input.
"""

from hashlib import blake2b
from typing import TypeVar

import msgpack
import msgspec

from schemas.errors import CodecError
from schemas.messages import VERSION, Message
from schemas.topics import Topic

M = TypeVar("M", bound=Message)

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
"""The largest payload on any topic; the broker's own limit is the same."""

_MAX_ITEMS = 1024
_MAX_STRING_BYTES = 4096
_PHOTO_ID_DIGITS = 32


def is_image(payload: bytes) -> bool:
    """Tell whether the bytes start like a JPEG or a PNG."""
    return payload.startswith((b"\xff\xd8", b"\x89PNG"))


def content_id(payload: bytes) -> str:
    """Return the photo id of bytes that carry none: their 128-bit BLAKE2b, as 32 hexadecimal digits."""
    return blake2b(payload, digest_size=16).hexdigest()


def encode(topic: Topic[M], message: M) -> bytes:
    """Return the message as this version writes it on that topic."""
    return to_msgpack(message) if topic.body == "msgpack" else to_json(message)


def to_json(message: Message) -> bytes:
    """Return the message as JSON; bytes become base64."""
    return msgspec.json.encode(message)


def to_msgpack(message: Message) -> bytes:
    """Return the message as a msgpack map; bytes stay bytes."""
    packed: bytes = msgpack.packb(msgspec.to_builtins(message, builtin_types=(bytes,)))
    return packed


def decode(topic: Topic[M], payload: bytes, names: dict[str, str]) -> M:
    """Return the message in a payload.

    Args:
        topic: The kind of topic it came on.
        payload: Any bytes at all.
        names: The names in the topic. They fill what the envelope leaves out; where both speak they agree.

    Raises:
        CodecError: The payload is no such message. Its code says whether it is malformed, of another
            version, or too large, and it carries the photo id where that could be read.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise CodecError(
            topic.kind, expected=f"at most {MAX_PAYLOAD_BYTES} bytes", got=len(payload), code="too-large"
        )
    if topic.bare_image and is_image(payload):
        return _convert(topic, names, {"photo_id": content_id(payload), "image": payload})
    fields = _fields(topic.kind, payload)
    _check_version(topic.kind, fields)
    return _convert(topic, names, fields)


def mark_historical(payload: bytes) -> bytes:
    """Return an encoded Photo marked as sent late, after an outage. A bare image stays as it is."""
    if is_image(payload):
        return payload
    packed: bytes = msgpack.packb(_fields("photo", payload) | {"historical": True})
    return packed


def _fields(kind: str, payload: bytes) -> dict[str, object]:
    """Return the payload's map, with nothing but its syntax checked."""
    try:
        fields = msgspec.json.decode(payload) if payload[:1] == b"{" else _unpack(payload)
    except (ValueError, RecursionError) as error:  # the errors of both libraries are ValueErrors
        got = f"{_describe(payload)}: {error or type(error).__name__}"
        raise CodecError(kind, expected="JSON or msgpack", got=got, code="malformed-message") from None
    if not isinstance(fields, dict):
        raise CodecError(kind, expected="a map", got=type(fields).__name__, code="malformed-message")
    return fields


def _unpack(payload: bytes) -> object:
    return msgpack.unpackb(
        payload,
        max_bin_len=MAX_PAYLOAD_BYTES,
        max_str_len=_MAX_STRING_BYTES,
        max_array_len=_MAX_ITEMS,
        max_map_len=_MAX_ITEMS,
        max_ext_len=0,
    )


def _check_version(kind: str, fields: dict[str, object]) -> None:
    version = fields.get("v", VERSION)
    if version != VERSION or isinstance(version, bool):
        raise CodecError(
            kind,
            expected=f"version {VERSION}",
            got=str(version)[:40],
            code="unsupported-version",
            photo_id=_photo_id(fields),
        )


def _convert(topic: Topic[M], names: dict[str, str], fields: dict[str, object]) -> M:
    try:
        message = msgspec.convert(names | fields, topic.message)
    except (msgspec.ValidationError, RecursionError) as error:
        raise CodecError(
            topic.kind,
            expected=topic.message.__name__,
            got=str(error)[:200],
            code="malformed-message",
            photo_id=_photo_id(fields),
        ) from None
    for name, value in names.items():
        if (said := getattr(message, name)) != value:
            raise CodecError(
                topic.kind,
                expected=f"{name} {value} as in its topic",
                got=said,
                code="malformed-message",
                photo_id=_photo_id(fields),
            )
    return message


def _photo_id(fields: dict[str, object]) -> str | None:
    value = fields.get("photo_id")
    if not isinstance(value, str) or len(value) != _PHOTO_ID_DIGITS or value.strip("0123456789abcdef"):
        return None
    return value


def _describe(payload: bytes) -> str:
    return f"{len(payload)} bytes starting with {payload[:8].hex(' ') or 'nothing'}"
