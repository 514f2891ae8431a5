"""Bytes to messages and back: the boundary at which everything from outside is checked.

Bytes ride in msgpack, everything else is JSON, and a reader accepts either for any message, because the
first byte tells: `{` is JSON, `FF D8` and `89 50 4E 47` are images, anything else has to be a msgpack map.

For any input at all: `decode` raises nothing but `CodecError`, takes linear time, and beside a few copies of
the payload uses at most about 100 bytes of memory for each of `MAX_STRUCTURE_BYTES`: a large message is large
because of one picture, and anything else that is large is refused before it is built.
"""

from functools import cache
from hashlib import blake2b
from typing import TypeVar

import msgpack
import msgspec

from schemas.errors import CodecError
from schemas.messages import VERSION, Message
from schemas.topics import PHOTO, Topic

M = TypeVar("M", bound=Message)

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
"""The largest payload on any topic; the broker's own limit is the same."""

MAX_STRUCTURE_BYTES = 256 * 1024
"""The most that a payload may hold beside its top-level strings and bytes."""

_MSGPACK_LIMITS = {
    "max_bin_len": MAX_PAYLOAD_BYTES,
    "max_str_len": 4096,
    "max_array_len": 1024,
    "max_map_len": 1024,
    "max_ext_len": 0,
}
_MSGPACK_BIN = frozenset({0xC4, 0xC5, 0xC6})
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
    fields = _fields(topic, payload)
    _check_version(topic.kind, fields)
    return _convert(topic, names, fields)


def to_text(topic: Topic[M], payload: bytes) -> bytes:
    """Return an encoded message as JSON, unknown fields and all, for a way that carries nothing but text.

    Raises:
        CodecError: The payload is no map at all.
    """
    return payload if payload[:1] == b"{" else msgspec.json.encode(_fields(topic, payload))


def mark_historical(payload: bytes) -> bytes:
    """Return an encoded Photo marked as sent late, after an outage. A bare image stays as it is."""
    if is_image(payload):
        return payload
    packed: bytes = msgpack.packb(_fields(PHOTO, payload) | {"historical": True})
    return packed


def _fields(topic: Topic[M], payload: bytes) -> dict[str, object]:
    """Return the payload's map, with nothing but its syntax checked."""
    try:
        fields = _from_json(topic, payload) if payload[:1] == b"{" else _from_msgpack(topic, payload)
    except (ValueError, RecursionError) as error:  # the errors of both libraries are ValueErrors
        got = f"{_describe(payload)}: {str(error) or type(error).__name__}"
        raise CodecError(topic.kind, expected="JSON or msgpack", got=got, code="malformed-message") from None
    if not isinstance(fields, dict):
        raise CodecError(topic.kind, expected="a map", got=type(fields).__name__, code="malformed-message")
    return fields


def _from_json(topic: Topic[M], payload: bytes) -> object:
    if len(payload) <= MAX_STRUCTURE_BYTES:
        return msgspec.json.decode(payload)
    parts = msgspec.structs.asdict(msgspec.json.decode(payload, type=_undecoded(topic.message)))
    known = {name: bytes(part) for name, part in parts.items() if part}
    _check_structure(topic, sum(len(part) for part in known.values() if not part.startswith(b'"')))
    return {name: msgspec.json.decode(part) for name, part in known.items()}


@cache
def _undecoded(message: type[Message]) -> type[msgspec.Struct]:
    """Return the message's shape with each field still encoded; unknown fields are passed over."""
    names = ("v", *message.__struct_encode_fields__)
    return msgspec.defstruct(f"Undecoded{message.__name__}", [(n, msgspec.Raw, msgspec.Raw()) for n in names])


def _from_msgpack(topic: Topic[M], payload: bytes) -> object:
    if len(payload) > MAX_STRUCTURE_BYTES:
        scan = msgpack.Unpacker(max_buffer_size=len(payload), **_MSGPACK_LIMITS)
        scan.feed(payload)
        try:
            _check_structure(topic, len(payload) - _top_level_bytes(scan, payload))
        except msgpack.OutOfData:
            raise ValueError("it ends too early") from None
    return msgpack.unpackb(payload, **_MSGPACK_LIMITS)


def _top_level_bytes(scan: msgpack.Unpacker, payload: bytes) -> int:
    """Return how much of a map is values of bytes, without building anything."""
    total = 0
    for _ in range(scan.read_map_header()):
        scan.skip()
        at = scan.tell()
        scan.skip()
        if payload[at] in _MSGPACK_BIN:
            total += scan.tell() - at
    return total


def _check_structure(topic: Topic[M], size_bytes: int) -> None:
    if size_bytes > MAX_STRUCTURE_BYTES:
        expected = f"at most {MAX_STRUCTURE_BYTES} bytes beside a picture"
        raise CodecError(topic.kind, expected=expected, got=size_bytes, code="too-large")


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
