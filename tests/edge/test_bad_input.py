"""G4: each kind of bad input gets one rejection, and good photos are answered as before."""

import struct
import zlib
from functools import cache

import msgpack
import pytest

from cli.main import main
from schemas.codec import content_id
from schemas.errors import TopicError
from schemas.topics import PHOTO, ROOT
from tests.conftest import jpeg
from tests.nodes import NODE, Observer, counted, edge_running, enveloped, photo, photo_id, station, truncated
from tests.pictures.odd import encoded, scene, segments


@cache
def vast_png(side: int = 30_000) -> bytes:
    """Return a small file that declares 900 million pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def double_header() -> bytes:
    """Return a PNG whose first header declares 40 x 24 pixels, and whose second 900 million."""
    small, vast = encoded(scene(), "PNG"), vast_png()
    return small[:33] + vast[8:]


def many_scans() -> bytes:
    """Return a small progressive JPEG that repeats its scans 300 times."""
    image = encoded(scene((16, 16), "L"), progressive=True)
    return image[:-2] + image[segments(image)[-1][0] : -2] * 300 + b"\xff\xd9"


def wide_message() -> bytes:
    """Return a message of three million fields."""
    return bytes(msgpack.packb({"image": [0] * 3_000_000}))


HEIC = b"\x00\x00\x00\x18ftypheic" + bytes(100)
TEXT = b"Dear edge,\nthis is no photo.\n"
OTHER_VERSION = msgpack.packb({"v": 9, "photo_id": photo_id(9), "image": {"url": "x"}})

BAD = {
    "text file": (TEXT, "malformed-message", None),
    "text in an envelope": (enveloped(9, TEXT), "unsupported-image", photo_id(9)),
    "empty message": (b"", "malformed-message", None),
    "truncated JPEG": (enveloped(9, truncated(photo(9))), "corrupt-image", photo_id(9)),
    "header alone": (jpeg(9)[:4], "corrupt-image", None),
    "too large": (lambda: jpeg(9) + bytes(4 << 20), "too-large", None),
    "too many pixels": (vast_png, "too-many-pixels", None),
    "two headers": (double_header, "corrupt-image", None),
    "many scans": (many_scans, "unsupported-image", None),
    "another format": (HEIC, "unsupported-image", None),
    "deep msgpack": (b"\x91" * 100_000, "malformed-message", None),
    "vast msgpack": (b"\xdf" + b"\xff" * 8, "malformed-message", None),
    "wide msgpack": (wide_message, "too-large", None),
    "other version": (OTHER_VERSION, "unsupported-version", photo_id(9)),
    "expired": (enveloped(9, photo(9), expires_at_ms=1), "expired", photo_id(9)),
    "a list": (msgpack.packb([1, 2]), "malformed-message", None),
    "wrong shape": (
        msgpack.packb({"v": 1, "photo_id": photo_id(9), "image": 7}),
        "malformed-message",
        photo_id(9),
    ),
    "another device's": (enveloped(9, photo(9), device="pi-2"), "malformed-message", photo_id(9)),
}
"""Bytes or what makes them, the code of the contract, and the photo's id if it is not that of the bytes."""


@pytest.mark.parametrize(("bad", "code", "expected_id"), BAD.values(), ids=BAD.keys())
async def test_g4_bad_input_gets_one_clear_answer(config, bad, code, expected_id):
    """One rejection with the contract's code and the photo's id; photos before and after are classified."""
    payload = bad() if callable(bad) else bad  # some take seconds to make: not while tests are collected
    async with station(config) as seen:
        for number, sent in enumerate((enveloped(1, photo(1)), payload, enveloped(2, photo(2)))):
            await seen.send(sent)
            if number == 1:
                rejection = await seen.answer(expected_id or content_id(payload))
        good = [await seen.answer(photo_id(number)) for number in (1, 2)]
    assert (rejection.status, rejection.code) == ("rejected", code)
    assert rejection.reason
    assert [(answer.status, answer.label) for answer in good] == [("ok", "cat")] * 2
    assert len(seen.results) == 3


def odd_photos() -> dict[str, tuple[bytes, bool]]:
    """Return photos that every viewer opens, and whether they are damaged."""
    whole = photo(3, size=(200, 160))
    start = segments(whole)[-1][1]
    half = whole[: start + (len(whole) - start) // 2]
    return {
        "no end": (whole[:-2], True),
        "zeros for an end": (whole[:-2] + bytes(600), True),
        "half grey": (half + b"\xff\xd9", True),
        "stray bytes": (whole[:20] + b"\x00\x01" + whole[20:], False),
        "two pictures": (whole + whole, False),
    }


@pytest.mark.parametrize("name", odd_photos())
async def test_an_odd_photo_is_answered(config, name):
    """It is classified; if data are missing, the result reports it, and it is not harvested as sure."""
    image, is_damaged = odd_photos()[name]
    async with station(config) as seen:
        await seen.send(image)
        answer = await seen.answer(content_id(image))
    assert (answer.status, answer.label) == ("ok", "cat")
    assert (answer.damaged is not None, answer.harvest) == (is_damaged, "damaged" if is_damaged else "auto")


async def test_g4_bad_input_does_not_delay_others(config):
    """While one device publishes invalid photos without pause, another one is answered."""
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            for number in range(20):
                for rubbish in range(20):
                    await seen.send(b"rubbish %d" % (number * 20 + rubbish), "vandal")
                await seen.send(enveloped(number, photo(number)))
            answers = [await seen.answer(photo_id(number)) for number in range(20)]
        assert {answer.status for answer in answers} == {"ok"}
        counters = await counted(seen)
        assert counters["photo.rejected_malformed-message"] + counters.get("photo.shed", 0) == 400


async def test_g4_an_invalid_topic_is_refused_or_ignored(config, capsys):
    """Our tools refuse a device name that is not a DNS label; the edge answers such topics as misnamed."""
    with pytest.raises(TopicError, match="DNS label"):
        PHOTO.name(node=NODE, device="a/b")
    with pytest.raises(SystemExit, match="2"):
        main(["send", "--name", "a/b", "photo.jpg"])
    assert "DNS label" in capsys.readouterr().err
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            for device in ("a/b", "A_B", ""):
                await seen.bus.publish_bytes(f"{ROOT}/photo/{NODE}/{device}", photo(1))
            await seen.send(enveloped(2, photo(2)))
            assert (await seen.answer(photo_id(2))).status == "ok"
        counters = await counted(seen)
        assert (counters["photo.received"], counters["bus.unmatched"]) == (1, 3)
        assert len(seen.results) == 1
