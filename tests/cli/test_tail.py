import asyncio
import json

import pytest

from bus.mqtt.subscription import RawMessage
from cli.tail import line, line_json, summary
from schemas.codec import encode
from schemas.messages import Photo
from schemas.topics import EVENT, PHOTO, SAMPLE
from tests.cli.conftest import start
from tests.cloud.collector.test_collector import sample
from tests.conftest import DEADLINE_S, jpeg
from tests.device.conftest import NODE

ID = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (jpeg(1, (640, 480)) + bytes(102_000), r"<1\d\d kB jpeg 640x480>"),
        (jpeg(1)[:10], "<10 bytes broken image>"),
        (b"\x00" * 10, "<10 bytes>"),
        (b"\x00" * 5000, "<5 kB>"),
        (b"a word", "a word"),
        (b"long " * 1000, "<5 kB>"),
        (b"", ""),
    ],
)
def test_bytes_are_summarised(payload, words):
    """An image has format and size in pixels, other bytes their number, a short text is unchanged."""
    import re  # noqa: PLC0415  # only for this test

    assert re.fullmatch(words, summary(payload))


def test_the_image_of_a_photo_is_summarised():
    """The line has the fields as JSON, with a summary in place of the image."""
    photo = Photo(photo_id=ID, node=NODE, device="pi-1", image=jpeg(1), sequence=4)
    text = line(RawMessage("gleaner/v1/photo/edge-1/pi-1", encode(PHOTO, photo), retained=False))
    topic, _, fields = text.partition(" ")
    assert topic == "gleaner/v1/photo/edge-1/pi-1"
    assert json.loads(fields)["sequence"] == 4
    assert json.loads(fields)["image"].endswith(" kB jpeg 160x120>")


def test_an_invalid_message_is_printed_with_the_reason():
    """Malformed payloads and unknown topics are printed too."""
    assert "malformed" not in line(RawMessage("other/topic", b"hello", retained=False))
    broken = line(RawMessage("gleaner/v1/event/edge-1/edge", b"{}", retained=True))
    assert broken.startswith("gleaner/v1/event/edge-1/edge (retained) ")
    assert "event: not a valid Event" in broken


def test_json_has_topic_retained_and_message():
    """A JSON line is one object, and its bytes are summarised."""
    message = RawMessage("gleaner/v1/sample/edge-1", encode(SAMPLE, sample(1)), retained=False)
    decoded = json.loads(line_json(message))
    assert (decoded["topic"], decoded["retained"]) == ("gleaner/v1/sample/edge-1", False)
    assert decoded["message"]["image"].endswith("jpeg 160x120>")
    assert decoded["message"]["label"] == "cat"


@pytest.mark.parametrize("chosen", ["photo/#/x", "photo/edge+/x", "a#", "photo/#x"])
def test_an_invalid_filter_is_an_error(called, chosen):
    """Without the check a misplaced wildcard would match nothing, without an error."""
    done = called("tail", chosen)
    assert done.code == 1
    assert "has a misplaced wildcard; + stands for a whole level" in done.sentence


async def test_only_matching_messages_are_printed(edge, at):
    """The filter works without the root, and --count ends the command."""
    process = await start("tail", "event/edge-1/+", "--json", "--count", "2", *at)
    printed = []
    async with asyncio.timeout(DEADLINE_S):
        while len(printed) < 2:
            await edge.bus.publish_bytes("gleaner/v1/result/edge-1/pi-1", b"not this")
            await edge.bus.publish_bytes(EVENT.name(node=NODE, name="edge"), b'{"event": "x"}')
            try:
                async with asyncio.timeout(0.2):
                    printed.append(json.loads(await process.stdout.readline()))
            except TimeoutError:
                continue
        assert await process.wait() == 0
    assert {message["topic"] for message in printed} == {"gleaner/v1/event/edge-1/edge"}
