"""Encode and decode messages; every payload from outside is checked here.

Messages with bytes are written as msgpack, all others as JSON; a reader accepts either for any message. The
first bytes distinguish them: `{`, also after white space or a UTF-8 byte order mark, is JSON, `FF D8` and
`89 50 4E 47` are images, all else must be a msgpack map.

For any input, `decode` raises only `CodecError` and takes linear time. In addition to a few copies of the
payload it needs at most about 100 bytes of memory for each byte of `MAX_STRUCTURE_BYTES`.
"""

from functools import cache
from hashlib import blake2b
from typing import TypeVar

import msgpack
import msgspec

from schemas.contract.published import readable
from schemas.errors import CodecError
from schemas.image.signatures import format_name
from schemas.lenient_values import (
    TRACE,
    has_nonfinite,
    with_integers,
    with_plain_base64,
    without_malformed_trace,
)
from schemas.messages import VERSION, Message
from schemas.text import without_surrogates
from schemas.topics import PHOTO, Topic

M = TypeVar("M", bound=Message)

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
"""Largest payload on any topic; the broker enforces the same limit."""

MAX_STRUCTURE_BYTES = 256 * 1024
"""Most bytes of a payload outside its top-level strings and bytes: only an image makes a message large."""

# msgpack checks these before it allocates anything; msgspec's own decoder has no limits.
_MSGPACK_LIMITS = {
    "max_bin_len": MAX_PAYLOAD_BYTES,
    "max_str_len": 4096,
    "max_array_len": 1024,
    "max_map_len": 1024,
    "max_ext_len": 0,  # the contract uses no extension types
}
_MSGPACK_BIN = frozenset({0xC4, 0xC5, 0xC6})  # first byte of `bin 8`, `bin 16` and `bin 32`
_MSGPACK_MAPS = frozenset(bytes([first]) for first in (*range(0x80, 0x90), 0xDE, 0xDF))
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WHITE_SPACE = b" \t\r\n"
# Byte order marks of UTF-16 and UTF-32, and an opening brace in them without one.
_WIDE_TEXT = (b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{", b"\0\0\xfe\xff", b"\0\0\0{")
_JPEG_START = b"\xff\xd8"
_PNG_START = b"\x89PNG"
_MAY_HOLD_FLOATS = frozenset({float, dict, list})
_ID_BYTES = 16
_ID_DIGITS = 2 * _ID_BYTES
_HEX_DIGITS = "0123456789abcdef"
# Text of a sender that is quoted in an error, and so in logs and results, is cut to these lengths.
_QUOTED_VERSION_CHARS = 40
_QUOTED_ERROR_CHARS = 200
_QUOTED_BYTES = 8


def is_image(payload: bytes) -> bool:
    """Return True if the bytes start like a JPEG or a PNG."""
    return payload.startswith((_JPEG_START, _PNG_START))


def _is_file(payload: bytes) -> bool:
    """Return True for a bare image, also one of a format that is then rejected by its name."""
    return is_image(payload) or format_name(payload) is not None


def content_id(payload: bytes) -> str:
    """Return the 128-bit BLAKE2b of some bytes as 32 hexadecimal digits; for a bare image, its photo id."""
    return blake2b(payload, digest_size=_ID_BYTES).hexdigest()


def encode(topic: Topic[M], message: M) -> bytes:
    """Return the payload for a message: msgpack or JSON, depending on the topic."""
    return to_msgpack(message) if topic.body == "msgpack" else to_json(message)


def to_json(message: Message) -> bytes:
    """Return the message as JSON; bytes become base64, and bytes of a text that are not UTF-8 `?`."""
    try:
        return msgspec.json.encode(message)
    except UnicodeEncodeError:
        return msgspec.json.encode(_encodable(msgspec.to_builtins(message)))


def to_msgpack(message: Message) -> bytes:
    """Return the message as a msgpack map; bytes stay bytes, and bytes of a text that are not UTF-8 `?`."""
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    try:
        packed: bytes = msgpack.packb(fields)
    except UnicodeEncodeError:
        packed = msgpack.packb(_encodable(fields))
    return packed


def _encodable(fields: object) -> object:
    # Names of files and a camera's headers get into reasons, and a Status that fails would end the service.
    # One character for each: an escape sequence could make a text longer than the contract allows.
    return without_surrogates(fields, "replace")


def decode(topic: Topic[M], payload: bytes, names: dict[str, str]) -> M:
    """Return the message in a payload.

    Args:
        topic: The topic it arrived on.
        payload: Any bytes.
        names: The names in that topic. They fill in fields that the payload leaves out, and must agree with
            those that it has.

    Raises:
        CodecError: The payload is not a valid message of the topic. Its code says whether it is malformed, of
            another version, or too large; it carries the photo id if that was readable.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise CodecError(
            topic.kind, expected=f"at most {MAX_PAYLOAD_BYTES} bytes", got=len(payload), code="too-large"
        )
    if topic.bare_image and _is_file(payload):
        return _convert(topic, names, {"photo_id": content_id(payload), "image": payload})
    fields = _parse(topic, payload)
    _check_version(topic.kind, fields)
    return _convert(topic, names, fields)


def to_text(topic: Topic[M], payload: bytes) -> bytes:
    """Return an encoded message as JSON, for a transport that carries only text; unknown fields are kept.

    Raises:
        CodecError: The payload is neither a JSON object nor a msgpack map.
    """
    text = _json_text(payload)
    return msgspec.json.encode(_parse(topic, payload)) if text is None else text


def mark_historical(payload: bytes) -> bytes:
    """Return an encoded Photo marked as sent late, after an outage. A bare image is returned unchanged.

    Raises:
        CodecError: It is neither a JSON object nor a msgpack map.
    """
    if _is_file(payload):
        return payload
    # Fields, not a Photo: unknown fields of a newer sender are kept. JSON stays JSON: in msgpack, base64
    # would be a longer text than one may be, and some numbers of JSON cannot be written.
    fields = _parse(PHOTO, payload) | {"historical": True}
    packed: bytes = msgpack.packb(fields) if _json_text(payload) is None else msgspec.json.encode(fields)
    return packed


def stored_id(topic: Topic[M], name: str, payload: bytes) -> str:
    """Return the photo id in a stored payload of a topic.

    Args:
        topic: The kind of topic.
        name: Its topic name.
        payload: The encoded message.

    Raises:
        CodecError: The payload is not a valid message of that topic name.
    """
    names = topic.match(name)
    if names is None:
        raise CodecError(f"{name!r} is not a topic of a {topic.kind}", code="malformed-message")
    return str(decode(topic, payload, names).photo_id)  # type: ignore[attr-defined]  # only for messages with one


def _parse(topic: Topic[M], payload: bytes) -> dict[str, object]:
    """Return the fields of a payload; only the syntax and the limits are checked."""
    try:
        text = _json_text(payload)
        fields = _parse_msgpack(topic, payload) if text is None else _parse_json(topic, text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # both libraries raise ValueErrors; deep nesting: RecursionError
        reason = _reason(payload, text, error)
        got = f"{_describe(payload)}: {reason}"
        raise CodecError(topic.kind, expected="JSON or msgpack", got=got, code="malformed-message") from None
    if not isinstance(fields, dict):
        raise CodecError(
            topic.kind, expected="a map of fields", got=type(fields).__name__, code="malformed-message"
        )
    return fields


def _reason(payload: bytes, text: bytes | None, error: Exception) -> str:
    """Return in words why a payload cannot be read."""
    if payload.startswith(_WIDE_TEXT):
        return "it looks like UTF-16 or UTF-32, and JSON is UTF-8"
    if text is None and payload[:1] not in _MSGPACK_MAPS:
        return "neither a JSON object, a msgpack map nor a picture"
    reason = str(error) or type(error).__name__
    if text is not None:
        if "truncated" in reason and text.rstrip().endswith(b"}"):
            return "it is cut off, or a text has half a surrogate pair"
        return "it is nested too deeply" if isinstance(error, RecursionError) else reason
    if isinstance(error, UnicodeDecodeError):
        return "a text that is not UTF-8; in msgpack, an image has the type bin"
    return _exceeded_limit(reason) or _wrong_msgpack(reason)


def _exceeded_limit(reason: str) -> str | None:
    """Return in words which of `_MSGPACK_LIMITS` a value exceeds, None if it is none."""
    if "max_str_len" in reason:
        return "a text that is too long; in msgpack, an image has the type bin"
    if "max_ext_len" in reason:
        return "a value of an extension type, such as a timestamp: send numbers and text"
    if "max_array_len" in reason:
        return "a list of more than 1024 values"
    return "a map of more than 1024 fields" if "max_map_len" in reason else None


def _wrong_msgpack(reason: str) -> str:
    """Return in words what the library reports about a payload that is not msgpack."""
    if "strict_map_key" in reason:
        return "the name of a field is not text"
    if "StackError" in reason:
        return "it is nested too deeply"
    if "extra data" in reason:
        return "there are bytes behind the map"
    return "it is cut off" if "incomplete input" in reason else reason


def _json_text(payload: bytes) -> bytes | None:
    """Return the JSON object in a payload, None if it cannot be one."""
    # No msgpack map starts with one of these bytes. Programs in C often send the zero that ends their text.
    text = payload.removeprefix(_BYTE_ORDER_MARK).lstrip(_WHITE_SPACE).rstrip(b"\x00")
    return text if text.startswith(b"{") else None


def _parse_json(topic: Topic[M], payload: bytes) -> object:
    if len(payload) <= MAX_STRUCTURE_BYTES:
        try:
            return msgspec.json.decode(payload)
        except msgspec.DecodeError as error:
            # An unknown field may have a number that Python cannot read, such as 1e400: it is skipped.
            try:
                return _known_fields(topic, payload)
            except msgspec.DecodeError:
                raise error from None
    return _known_fields(topic, payload)


def _known_fields(topic: Topic[M], payload: bytes) -> dict[str, object]:
    """Return the fields of a JSON object without those that the message does not have."""
    # Split into undecoded fields first: a large array would cost many times its size once decoded.
    parts = msgspec.structs.asdict(msgspec.json.decode(payload, type=_undecoded(topic.message)))
    known = {name: bytes(part) for name, part in parts.items() if part}
    # Strings may be large: an image in base64 is one.
    _check_structure(topic, sum(len(part) for part in known.values() if not part.startswith(b'"')))
    return {name: msgspec.json.decode(part) for name, part in known.items()}


@cache
def _undecoded(message: type[Message]) -> type[msgspec.Struct]:
    """Return a Struct that keeps each wire field of the message as encoded JSON and skips unknown fields."""
    names = ("v", *message.__struct_encode_fields__)
    return msgspec.defstruct(f"Undecoded{message.__name__}", [(n, msgspec.Raw, msgspec.Raw()) for n in names])


def _parse_msgpack(topic: Topic[M], payload: bytes) -> object:
    if len(payload) > MAX_STRUCTURE_BYTES:
        scan = msgpack.Unpacker(max_buffer_size=len(payload), **_MSGPACK_LIMITS)
        scan.feed(payload)
        try:
            _check_structure(topic, len(payload) - _binary_bytes(scan, payload))
        except msgpack.OutOfData:
            raise ValueError("the payload is truncated") from None
    try:
        return msgpack.unpackb(payload, **_MSGPACK_LIMITS)
    except ValueError as error:
        # An unknown field may have a value that no version of this contract has: it is skipped.
        try:
            return _known_msgpack_fields(topic, payload)
        except (ValueError, msgpack.OutOfData):
            raise error from None


def _known_msgpack_fields(topic: Topic[M], payload: bytes) -> dict[str, object]:
    """Return the fields of a msgpack map without those that the message does not have."""
    known = {"v", *topic.message.__struct_encode_fields__}
    scan = msgpack.Unpacker(max_buffer_size=len(payload), **_MSGPACK_LIMITS)
    scan.feed(payload)
    fields: dict[str, object] = {}
    for _ in range(scan.read_map_header()):
        name = scan.unpack()
        if isinstance(name, str) and name in known:
            fields[name] = scan.unpack()
        else:
            scan.skip()
    if scan.tell() != len(payload):
        raise ValueError  # the caller has the reason
    return fields


def _binary_bytes(scan: msgpack.Unpacker, payload: bytes) -> int:
    """Return how many bytes of a map are top-level binary values, without decoding any value."""
    total = 0
    for _ in range(scan.read_map_header()):
        scan.skip()  # the key
        start = scan.tell()
        scan.skip()  # the value
        if payload[start] in _MSGPACK_BIN:
            total += scan.tell() - start
    return total


def _check_structure(topic: Topic[M], size_bytes: int) -> None:
    if size_bytes > MAX_STRUCTURE_BYTES:
        expected = f"at most {MAX_STRUCTURE_BYTES} bytes apart from an image"
        raise CodecError(topic.kind, expected=expected, got=size_bytes, code="too-large")


def _check_version(kind: str, fields: dict[str, object]) -> None:
    version = fields.get("v", VERSION)
    if version != VERSION or isinstance(version, bool):  # True == 1 in Python
        raise CodecError(
            kind,
            expected=f"version {VERSION}",
            got=repr(version)[:_QUOTED_VERSION_CHARS],
            code="unsupported-version",
            photo_id=_photo_id(fields),
        )


def _convert(topic: Topic[M], names: dict[str, str], fields: dict[str, object]) -> M:
    if fields.get(TRACE) is not None:
        fields = without_malformed_trace(fields)
    try:
        message = _typed(topic, names | fields)  # fields of the payload win; compared with the topic below
    except (msgspec.ValidationError, RecursionError) as error:
        reason = readable(error)[:_QUOTED_ERROR_CHARS] or "nested too deeply"
        raise CodecError(
            f"{topic.kind}: not a valid {topic.message.__name__}: {reason}",
            code="malformed-message",
            photo_id=_photo_id(fields),
        ) from None
    for name, value in names.items():
        # Access control of the broker checks the topic alone, so a payload must not claim another sender.
        if (claimed := getattr(message, name)) != value:
            raise CodecError(
                topic.kind,
                expected=f"{name} {value} as in its topic",
                got=claimed,
                code="malformed-message",
                photo_id=_photo_id(fields),
            )
    return message


def _typed(topic: Topic[M], fields: dict[str, object]) -> M:
    """Return the message with these fields.

    Raises:
        msgspec.ValidationError: A field is missing or has a wrong value.
        RecursionError: A field is nested too deeply.
    """
    for name in topic.message.__struct_encode_fields__:
        value = fields.get(name)
        if type(value) in _MAY_HOLD_FLOATS and has_nonfinite(value):  # few fields do: no call for the others
            raise msgspec.ValidationError(f"Expected a finite number, got NaN or infinity - at `$.{name}`")
    try:
        return msgspec.convert(fields, topic.message)
    except msgspec.ValidationError:
        # Only now: most senders write integers as such, and `facts` may have floats that are integers.
        return msgspec.convert(with_plain_base64(topic.message, with_integers(fields)), topic.message)


def _photo_id(fields: dict[str, object]) -> str | None:
    value = fields.get("photo_id")
    if not isinstance(value, str) or len(value) != _ID_DIGITS or value.strip(_HEX_DIGITS):
        return None
    return value


def _describe(payload: bytes) -> str:
    return f"{len(payload)} bytes starting with {payload[:_QUOTED_BYTES].hex(' ') or 'nothing'}"
