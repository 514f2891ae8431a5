"""A broker that accepts only small messages: a result is shortened, so that its photo ends in one answer."""

from edge.inference.answers.results import shortened
from schemas.codec import content_id, encode
from schemas.field_types import MAX_TEXT_CHARS
from schemas.messages import Result
from schemas.topics import RESULT
from tests.bus.mqtt.test_limits import limit
from tests.nodes import NODE, photo_id, station

DEVICE = "d" * 63
MOST_BYTES = 410  # above the connection's last will, which mosquitto checks too


async def test_a_result_above_the_limit_of_the_broker_is_shortened(broker, config, monkeypatch):
    """Its reason is cut, its sender gets it once, and nothing is published a third time."""
    wrong = b"{no message"  # the reason is long: it explains the id
    async with station(config) as seen:
        limit(monkeypatch, broker, "message_size_limit 8388608", f"message_size_limit {MOST_BYTES}")
        await seen.bus.connected(after=1)
        await seen.send(wrong, DEVICE)
        answer = await seen.answer(content_id(wrong), DEVICE)
    assert (answer.status, answer.code) == ("rejected", "malformed-message")
    assert len(answer.reason or "") == 60  # cut
    assert len(seen.results) == 1


def test_a_short_result_is_short_and_has_no_shorter_form():
    """For any result, its short form has less than 500 bytes, and is final."""
    full = Result(
        photo_id=photo_id(1),
        node=NODE,
        device=DEVICE,
        status="ok",
        label="cat",
        confidence=0.123456,
        scores={f"class-{number}": 0.001 for number in range(1000)},
        model="pets",
        model_version=2**31,
        reason="r" * MAX_TEXT_CHARS,
        damaged="m" * MAX_TEXT_CHARS,
        answered_at_ms=2**42,
    )
    short = shortened(full)
    assert len(encode(RESULT, short)) < 500
    assert shortened(short) == short
