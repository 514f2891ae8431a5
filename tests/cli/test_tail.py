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
from tests.conftest import jpeg
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
    """Images by format and size in pixels, other bytes by their number, a short text as it is."""
    import re  # noqa: PLC0415  # for this test alone

    assert re.fullmatch(words, summary(payload))


def test_a_photo_is_a_line_with_its_image_in_words():
    """The envelope is readable, the picture a few words."""
    photo = Photo(photo_id=ID, node=NODE, device="pi-1", image=jpeg(1), sequence=4)
    told = line(RawMessage("gleaner/v1/photo/edge-1/pi-1", encode(PHOTO, photo), retained=False))
    topic, _, fields = told.partition(" ")
    assert topic == "gleaner/v1/photo/edge-1/pi-1"
    assert json.loads(fields)["sequence"] == 4
    assert json.loads(fields)["image"].endswith(" kB jpeg 160x120>")


def test_what_is_no_message_is_shown_with_the_reason():
    """Malformed payloads and topics that nobody knows are lines too."""
    assert "malformed" not in line(RawMessage("other/topic", b"hello", retained=False))
    broken = line(RawMessage("gleaner/v1/event/edge-1/edge", b"{}", retained=True))
    assert broken.startswith("gleaner/v1/event/edge-1/edge (retained) ")
    assert "event: expected Event" in broken


def test_json_has_topic_retained_and_message():
    """A line for pipes is one object; bytes in it are summarised as well."""
    message = RawMessage("gleaner/v1/sample/edge-1", encode(SAMPLE, sample(1)), retained=False)
    told = json.loads(line_json(message))
    assert (told["topic"], told["retained"]) == ("gleaner/v1/sample/edge-1", False)
    assert told["message"]["image"].endswith("jpeg 160x120>")
    assert told["message"]["label"] == "cat"


@pytest.mark.parametrize("chosen", ["photo/#/x", "photo/edge+/x", "a#", "photo/#x"])
def test_a_filter_that_no_broker_takes_is_said(called, chosen):
    """Wildcards in the wrong place would match nothing in silence."""
    done = called("tail", chosen)
    assert done.code == 1
    assert "expected + for a whole level, # for the whole rest" in done.sentence


async def test_it_follows_a_filter(edge, at):
    """Only what the filter matches is printed, without the root in the filter; --count ends it."""
    process = await start("tail", "event/edge-1/+", "--json", "--count", "2", *at)
    told = []
    async with asyncio.timeout(30):
        while len(told) < 2:
            await edge.bus.publish_bytes("gleaner/v1/result/edge-1/pi-1", b"not this")
            await edge.bus.publish_bytes(EVENT.name(node=NODE, name="edge"), b'{"event": "x"}')
            try:
                async with asyncio.timeout(0.2):
                    told.append(json.loads(await process.stdout.readline()))
            except TimeoutError:
                continue
        assert await process.wait() == 0
    assert {message["topic"] for message in told} == {"gleaner/v1/event/edge-1/edge"}
