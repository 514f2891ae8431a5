import base64
import dataclasses
import math
import time
import tracemalloc

import msgpack
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec import (
    MAX_PAYLOAD_BYTES,
    MAX_STRUCTURE_BYTES,
    content_id,
    decode,
    encode,
    mark_historical,
    to_json,
    to_msgpack,
    to_text,
)
from schemas.contract.examples import examples_of
from schemas.errors import CodecError
from schemas.messages import Command, Event, Feedback, Message, Photo, Result
from schemas.topics import COMMAND, EVENT, FEEDBACK, PHOTO, RECEIPT, RESULT, SAMPLE, TOPICS, Topic
from tests.schemas.strategies import messages

NAMES = {"node": "edge-1", "device": "pi-1", "name": "pi-1"}
SENDER = {"node": "edge-1", "device": "pi-1"}
JPEG = b"\xff\xd8\xff\xe0 not much of a picture"


def names_of(message: Message, topic: Topic[Message]) -> dict[str, str]:
    return {name: getattr(message, name) for name in topic.names}


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.kind)
@pytest.mark.parametrize("write", [to_json, to_msgpack])
@given(data=st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_message_survives_both_encodings(topic, write, data):
    """Decoding the JSON or the msgpack of a message returns an equal message."""
    message = data.draw(messages(topic.message))
    assert decode(topic, write(message), names_of(message, topic)) == message


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.kind)
@given(data=st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_g7_conversion_to_text_loses_nothing(topic, data):
    """G7: converting a message to JSON text loses nothing, not even unknown fields."""
    message = data.draw(messages(topic.message))
    fields = msgspec.to_builtins(message, builtin_types=(bytes,)) | {"later": b"\xff", "sooner": 1}
    text = to_text(topic, msgpack.packb(fields))
    assert decode(topic, text.decode().encode(), names_of(message, topic)) == message
    assert to_text(topic, text) == text
    assert (msgspec.json.decode(text)["later"], msgspec.json.decode(text)["sooner"]) == ("/w==", 1)


def hostile() -> st.SearchStrategy[bytes]:
    """Generate random bytes, and bytes that are almost a message."""
    packed = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(-9, 9) | st.binary(), inner),
        max_leaves=8,
    ).map(msgpack.packb)
    fields = st.dictionaries(
        st.sampled_from(["v", "photo_id", "node", "device", "image", "status", "label", "scores"]),
        st.none() | st.text() | st.integers(0, 9) | st.binary() | st.just("0" * 32),
    ).map(msgpack.packb)
    return st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=400).map(lambda tail: b"{" + tail),
        st.binary(max_size=400).map(lambda tail: b"\xff\xd8" + tail),
        packed,
        fields,
        st.text().map(lambda text: f'{{"photo_id": "{text}"}}'.encode()),
    )


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.kind)
@given(payload=hostile())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_bytes_raise_anything_but_codec_error(topic, payload):
    """Any bytes are decoded or raise a CodecError with a code of the contract."""
    names = {name: NAMES[name] for name in topic.names}
    try:
        to_text(topic, payload)
        decode(topic, payload, names)
    except CodecError as error:
        assert error.code in ("malformed-message", "unsupported-version", "too-large")  # noqa: PT017


BOMBS = {
    "claims 4 billion items": lambda n: b"\xdd\xff\xff\xff\xff" + b"\xc0" * n,
    "claims 4 GB of bytes": lambda n: b"\xc6\xff\xff\xff\xff" + b"x" * n,
    "nested lists": lambda n: b"\x91" * n,
    "nested maps": lambda n: b"\x81\xa1a" * (n // 3),
    "lists that each claim the most": lambda n: b"\xdc\x04\x00" * (n // 3),
    "empty lists in full lists": lambda n: b"\xdc\x04\x00" + (b"\xdc\x04\x00" + b"\x90" * 1024) * (n // 1027),
    "nested JSON": lambda n: b'{"a":' * (n // 5),
    "nested JSON lists": lambda n: b'{"a":' + b"[" * n,
    "a JSON number of many digits": lambda n: b'{"interval_s":' + b"9" * n + b"}",
    "a JSON string never closed": lambda n: b'{"node":"' + b"a" * n,
    "many JSON keys": lambda n: b"{" + b",".join(b'"%d":[]' % i for i in range(n // 12)) + b"}",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=list(BOMBS))
def test_bombs_use_bounded_memory(bomb):
    """Decoding needs a few copies of the payload, plus at most 100 times the allowed structure."""
    payload = bomb(8_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            decode(COMMAND, payload, {"node": "edge-1", "device": "pi-1"})
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * len(payload) + 100 * MAX_STRUCTURE_BYTES


@pytest.mark.parametrize("write", [to_json, to_msgpack])
def test_only_an_image_may_make_a_message_large(write):
    """A photo of several megabytes is read; as many bytes of other fields are rejected as too large."""
    image = b"\xff\xd8" + b"x" * 5_000_000
    photo = Photo(photo_id="0" * 32, node="edge-1", device="pi-1", image=image)
    names = {"node": "edge-1", "device": "pi-1"}
    assert decode(PHOTO, write(photo), names) == photo
    crowd = Result(
        photo_id="0" * 32,
        node="edge-1",
        device="pi-1",
        status="ok",
        answered_at_ms=1,
        scores={f"{number:05d}" + "x" * 300: 0.5 for number in range(1000)},
    )
    with pytest.raises(CodecError) as caught:
        decode(RESULT, write(crowd), names)
    assert caught.value.code == "too-large"


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=list(BOMBS))
def test_bombs_take_linear_time(bomb):
    """A payload 16 times as large takes less than 100 times the CPU time; quadratic would be 256 times."""

    def cpu_s(size: int) -> float:
        payload, best = bomb(size), float("inf")
        for _ in range(5):
            start = time.thread_time()  # CPU time of this thread: other processes do not count
            with pytest.raises(CodecError):
                decode(COMMAND, payload, {"node": "edge-1", "device": "pi-1"})
            best = min(best, time.thread_time() - start)
        return best

    assert cpu_s(1_600_000) < 100 * max(cpu_s(100_000), 2e-5)


def test_an_oversized_payload_is_rejected_as_too_large():
    """A payload over the limit is rejected without parsing it."""
    with pytest.raises(CodecError) as caught:
        decode(COMMAND, b"{" * (MAX_PAYLOAD_BYTES + 1), {"node": "edge-1", "device": "pi-1"})
    assert caught.value.code == "too-large"


@pytest.mark.parametrize("image", [JPEG, b"\x89PNG\r\n\x1a\n rest"])
def test_a_bare_image_is_a_photo(image):
    """A bare JPEG or PNG decodes to a Photo whose id is the BLAKE2b of its bytes."""
    photo = decode(PHOTO, image, {"node": "edge-1", "device": "me"})
    assert photo == Photo(photo_id=content_id(image), node="edge-1", device="me", image=image)


def test_a_bare_image_is_rejected_on_other_topics():
    """Only the photo topic accepts bare images."""
    with pytest.raises(CodecError):
        decode(RESULT, JPEG, {"node": "edge-1", "device": "me"})


def test_another_version_is_rejected_with_the_photo_id():
    """A message of version 9 raises unsupported-version and carries its photo id for the answer."""
    payload = msgpack.packb({"v": 9, "photo_id": "ab" * 16, "picture": b"?"})
    with pytest.raises(CodecError) as caught:
        decode(PHOTO, payload, {"node": "edge-1", "device": "me"})
    assert caught.value.code == "unsupported-version"
    assert caught.value.photo_id == "ab" * 16


def test_unknown_fields_are_ignored():
    """G7: a message with additional fields of a later version is decoded."""
    fields = msgspec.to_builtins(Command(node="edge-1", device="pi-1", action="capture")) | {
        "zoom": [1, {"a": 2}]
    }
    for payload in (msgspec.json.encode(fields), msgpack.packb(fields)):
        assert decode(COMMAND, payload, {"node": "edge-1", "device": "pi-1"}).action == "capture"


TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
TRACED = (PHOTO, RESULT, SAMPLE, RECEIPT)


def before_traces(topic: Topic[Message]) -> type[Message]:
    """Return the class of a message as it was before it had a field `trace`."""
    fields = [
        (one.name, one.type, msgspec.field(name=one.encode_name))
        if one.required
        else (one.name, one.type, msgspec.field(name=one.encode_name, default=one.default))
        for one in msgspec.structs.fields(topic.message)
        if one.name != "trace"
    ]
    return msgspec.defstruct(topic.message.__name__, fields, bases=(Message,), kw_only=True, tag=1)


@pytest.mark.parametrize("topic", TRACED, ids=lambda topic: topic.kind)
@pytest.mark.parametrize("write", [to_json, to_msgpack])
def test_g7_a_trace_is_invisible_to_readers_before_it(topic, write):
    """G7: a reader without the field reads a traced message; without a trace, not a byte is different."""
    for example in examples_of(topic.message):
        old = msgspec.convert(msgspec.to_builtins(example, builtin_types=(bytes,)), before_traces(topic))
        assert write(example) == write(old)
        traced = write(msgspec.structs.replace(example, trace=TRACE))
        assert decode(dataclasses.replace(topic, message=type(old)), traced, names_of(example, topic)) == old
        assert decode(topic, traced, names_of(example, topic)).trace == TRACE


@pytest.mark.parametrize(
    "trace",
    ["", "x", TRACE.upper(), f"{TRACE}\n", f"{TRACE}-00", "01" + TRACE[2:], "x" * 4096, TRACE.encode(),
     1, True, 0.5, math.nan, [TRACE], {"a": TRACE}, {"a": [math.inf]}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("topic", TRACED, ids=lambda topic: topic.kind)
def test_a_malformed_trace_is_none(topic, trace):
    """Nobody's photo is rejected, and no sample lost, because of the trace that a library gave it."""
    example = examples_of(topic.message)[0]
    payload = msgpack.packb(msgspec.to_builtins(example, builtin_types=(bytes,)) | {"trace": trace})
    assert decode(topic, payload, names_of(example, topic)) == example


def test_names_of_the_topic_fill_in_missing_fields():
    """A payload may omit node and device; they come from the topic."""
    payload = b'{"photo_id": "' + b"0" * 32 + b'", "label": "cat"}'
    assert decode(FEEDBACK, payload, {"node": "edge-1", "device": "pi-1"}) == Feedback(
        photo_id="0" * 32, node="edge-1", device="pi-1", label="cat"
    )


def test_names_in_the_payload_must_match_the_topic():
    """A payload that names another device than its topic is rejected."""
    command = Command(node="edge-1", device="pi-2", action="capture")
    with pytest.raises(CodecError, match="pi-2"):
        decode(COMMAND, encode(COMMAND, command), {"node": "edge-1", "device": "pi-1"})


@given(message=messages(Result))
@settings(max_examples=25, deadline=None)
def test_the_first_bytes_identify_the_encoding(message):
    """No msgpack that we write starts like JSON or like an image."""
    assert to_json(message)[:1] == b"{"
    assert not to_msgpack(message).startswith((b"{", b"\xff\xd8", b"\x89PNG"))


def test_marking_a_photo_as_historical_changes_nothing_else():
    """`mark_historical` sets only `historical`; a bare image stays as it is."""
    photo = Photo(photo_id="0" * 32, node="edge-1", device="pi-1", image=JPEG, sequence=7)
    late = decode(PHOTO, mark_historical(encode(PHOTO, photo)), {"node": "edge-1", "device": "pi-1"})
    assert late == msgspec.structs.replace(photo, historical=True)
    assert mark_historical(JPEG) == JPEG


def written(topic: Topic[Message], message: Message) -> dict[str, object]:
    """Return the fields of a message, with the bytes."""
    return msgspec.to_builtins(message, builtin_types=(bytes,))


def with_floats(value: object) -> object:
    """Return a value with each integer as a float of the same value."""
    if isinstance(value, dict):
        return {name: with_floats(one) for name, one in value.items()}
    if isinstance(value, list):
        return [with_floats(one) for one in value]
    return float(value) if type(value) is int and abs(value) <= 2**53 else value


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.kind)
@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_integer_may_be_written_as_a_float(topic, data):
    """As in JSON Schema 1700000000000.0 is an integer, in JSON and, as JavaScript packs it, in msgpack."""
    message = data.draw(messages(topic.message))
    fields, names = with_floats(written(topic, message)), names_of(message, topic)
    assert decode(topic, msgpack.packb(fields), names) == message
    assert decode(topic, msgspec.json.encode(fields), names) == message


@pytest.mark.parametrize(
    ("number", "read"),
    [
        (b"1e3", 1000),
        (b"1.7e12", 1_700_000_000_000),
        (b"-0.0", 0),
        (b"9007199254740992.0", 2**53),
        (b"0.5", None),
        (b"1e300", None),
        (b"9007199254740994.0", None),
        (b"-1.0", None),
        (b'"1"', None),
        (b"true", None),
    ],
)
def test_only_integers_in_range_are_integers(number, read):
    """Fractions, numbers out of range, text and booleans are not times."""
    fields = b'{"photo_id":"%s","label":"cat","at_ms":%s}' % (b"0" * 32, number)
    if read is None:
        with pytest.raises(CodecError, match="at_ms"):
            decode(FEEDBACK, fields, {"node": "edge-1", "device": "pi-1"})
    else:
        assert decode(FEEDBACK, fields, {"node": "edge-1", "device": "pi-1"}).at_ms == read


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_cannot_express_are_refused(value):
    """NaN and infinities in any field, nested ones too; in a field that is not known they are ignored."""
    names = {"node": "edge-1", "name": "edge"}
    event = {"event": "model.failed", "at_ms": 1.0, "facts": {"a": value}}
    with pytest.raises(CodecError, match=r"finite.*facts"):
        decode(EVENT, msgpack.packb(event), names)
    with pytest.raises(CodecError, match=r"finite.*at_ms"):
        decode(EVENT, msgpack.packb({"event": "model.failed", "at_ms": value}), names)
    later = {"event": "model.failed", "at_ms": 1, "later": [value]}
    assert decode(EVENT, msgpack.packb(later), names).at_ms == 1


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.kind)
@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_json_may_be_surrounded_by_white_space(topic, data):
    """Blanks and line breaks around it, and a UTF-8 byte order mark before it, are accepted."""
    message = data.draw(messages(topic.message))
    blanks = st.text(" \t\r\n", max_size=4)
    mark = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    payload = mark + data.draw(blanks).encode() + to_json(message) + data.draw(blanks).encode()
    assert decode(topic, payload, names_of(message, topic)) == message
    assert decode(topic, to_text(topic, payload), names_of(message, topic)) == message


_PICTURE = JPEG * 40 + b"\xfb\xff\xfe"  # has `+` and `/` in base64
_VARIANTS = {
    "lines": base64.encodebytes(_PICTURE).decode().replace("\n", "\r\n"),
    "outer-space": f" {base64.b64encode(_PICTURE).decode()}\n",
    "url-safe": base64.urlsafe_b64encode(_PICTURE).decode(),
    "without-padding": base64.b64encode(_PICTURE[:-1]).decode().rstrip("="),
    "data-url-in-capitals": f"DATA:image/jpeg;BASE64,{base64.b64encode(_PICTURE).decode()}",
    "data-url": f"data:image/jpeg;base64,{base64.b64encode(_PICTURE).decode()}",
}


def _json_photo(text: str) -> bytes:
    return msgspec.json.encode({"photo_id": "0" * 32, "image": text})


@pytest.mark.parametrize("text", _VARIANTS.values(), ids=list(_VARIANTS))
def test_base64_is_read_as_encoders_write_it(text):
    """In lines, with the alphabet of URLs, without padding, or as browsers give it."""
    image = decode(PHOTO, _json_photo(text), {"node": "edge-1", "device": "pi-1"}).image
    assert image in (_PICTURE, _PICTURE[:-1])


@pytest.mark.parametrize("text", ["!!!!", "abcde", "ab=cd", "\u00e9", "data:image/jpeg,abcd!"])
def test_text_that_is_no_base64_is_refused(text):
    """What is overlooked leaves one meaning."""
    with pytest.raises(CodecError, match="image"):
        decode(PHOTO, _json_photo(text), {"node": "edge-1", "device": "pi-1"})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_another_encoding_of_text_is_named(encoding):
    """The error explains what is wrong with UTF-16 and UTF-32, with or without a byte order mark."""
    with pytest.raises(CodecError, match="UTF-16"):
        decode(COMMAND, '{"action":"capture"}'.encode(encoding), {"node": "edge-1", "device": "pi-1"})


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"hello", "neither a JSON object, a msgpack map nor a picture"),
        (b"[1, 2]", "neither a JSON object"),
        (b"\r\n\xff\xd8\xff", "neither a JSON object"),
        (b"", "neither a JSON object"),
        (msgpack.packb({"image": b"x" * 5000}, use_bin_type=False), "in msgpack, an image has the type bin"),
        (b"\x81\xa5image\xa2\xff\xd8", "in msgpack, an image has the type bin"),
        (b"\x81\xa5image\xc7\x02\x01\xff\xd8", "an extension type"),
        (b"\x81\xa5image" + b"\x91" * 2000 + b"\xc0", "nested too deeply"),
        (msgpack.packb({"image": [0] * 2000}), "a list of more than 1024 values"),
        (b"\xde\x10\x00", "a map of more than 1024 fields"),
        (msgpack.packb({"image": JPEG}) + b"\n", "bytes behind the map"),
        (msgpack.packb({"image": JPEG})[:-1], "cut off"),
        (b'{"image": "\\ud800"}', "half a surrogate pair"),
        (b'{"image": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
    ],
)
def test_what_is_no_message_is_named_in_words(payload, words):
    """A sender does not know what a decoder calls extra data."""
    with pytest.raises(CodecError) as caught:
        decode(PHOTO, payload, NAMES)
    assert words in str(caught.value)


@pytest.mark.parametrize("number", [b"1" + b"0" * 30, b"1e400", b"-1e400", b"9" * 5000], ids=len)
@pytest.mark.parametrize("mark", [bytes, mark_historical], ids=["live", "late"])
def test_an_unknown_field_may_have_any_number_of_json(number, mark):
    """Also one beyond what a double or Python reads: the photo counts, not what a newer sender adds."""
    image = base64.b64encode(JPEG)
    payload = b'{"photo_id": "%s", "image": "%s", "other": %s}' % (b"0" * 32, image, number)
    assert decode(PHOTO, mark(payload), SENDER).image == JPEG
    with pytest.raises(CodecError, match=r"out of range|finite|at `\$.sequence`"):
        decode(
            PHOTO, b'{"photo_id": "%s", "image": "%s", "sequence": %s}' % (b"0" * 32, image, number), NAMES
        )


@pytest.mark.parametrize(
    "value",
    [
        b"\xd6\xff\x00\x00\x00\x05",  # a timestamp
        b"\xd4\x01\x02",
        b"\xda\x20\x00" + b"a" * 8192,
        b"\xa2\xff\xfe",
        b"\xdc\x08\x00" + b"\x00" * 2048,
        b"\x81\x01\x02",
    ],
    ids=["timestamp", "extension", "long text", "no UTF-8", "long list", "numbers as names"],
)
@pytest.mark.parametrize("mark", [bytes, mark_historical], ids=["live", "late"])
def test_an_unknown_field_may_have_any_value_of_msgpack(value, mark):
    """As in JSON; also a field whose name is not text."""
    known = msgpack.packb({"photo_id": "0" * 32, "image": JPEG})[1:]
    for name in (b"\xa5other", b"\x07", b"\xc4\x02ab"):
        assert decode(PHOTO, mark(b"\x83" + known + name + value), SENDER).image == JPEG


def test_a_text_of_c_may_end_in_zeros():
    """Boards send the size of a buffer instead of the length of its text."""
    payload = b'{"photo_id": "%s", "image": "%s"}' % (b"0" * 32, base64.b64encode(JPEG))
    for end in (b"\x00", b"\n\x00\x00"):
        assert decode(PHOTO, payload + end, SENDER).image == JPEG
    with pytest.raises(CodecError, match="trailing characters"):
        decode(PHOTO, payload + b"\x00x", SENDER)


def test_a_late_photo_in_json_is_one_that_is_read():
    """It stays JSON: its image in base64 would be a text in msgpack, longer than one may be there."""
    photo = Photo(photo_id="0" * 32, node="edge-1", device="pi-1", image=JPEG * 5000, sequence=7)
    late = decode(PHOTO, mark_historical(to_json(photo)), SENDER)
    assert late == msgspec.structs.replace(photo, historical=True)


@pytest.mark.parametrize("crop", [(0.5, 0, 0.2, 1), (0, 0.5, 1, 0.5), (0, 1, 1, 0)])
def test_an_empty_crop_is_refused(crop):
    """Left is less than right and top less than bottom, as in a device's configuration."""
    with pytest.raises(CodecError, match="left < right and top < bottom"):
        decode(PHOTO, msgpack.packb({"photo_id": "0" * 32, "image": JPEG, "crop": crop}), SENDER)


def test_bytes_that_are_no_text_cost_a_character_each():
    """A reason with the name of a file that is not UTF-8 is sent, and no longer than it was."""
    event = Event(node="edge-1", name="edge", event="test.happened", at_ms=1, reason="\udce9" * 1024)
    assert decode(EVENT, to_json(event), {"node": "edge-1", "name": "edge"}).reason == "?" * 1024
    photo = Photo(photo_id="0" * 32, **SENDER, image=JPEG, damaged="caf\udce9")
    assert decode(PHOTO, to_msgpack(photo), SENDER).damaged == "caf?"
