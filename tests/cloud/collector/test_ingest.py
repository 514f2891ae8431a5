"""Rules of cloud/collector/ingest.py: which samples become rows, and which are dead letters."""

import pytest

from bus.mqtt.subscription import Delivery
from cloud.collector import ingest
from cloud.collector.ingest import validate_samples
from schemas.codec import encode
from schemas.messages import Sample
from schemas.topics import SAMPLE
from tests.cloud.collector.test_collector import sample
from tests.conftest import jpeg
from tests.nodes import NODE, photo_id


def delivery(payload: bytes, node: str = NODE) -> Delivery[Sample]:
    return Delivery(SAMPLE, {"node": node}, payload, retained=False, arrived_at=0.0, ack=lambda: None)


def test_sample_becomes_a_row_with_all_fields():
    """Every field of a sample is in the row but its harvest time and its trace."""
    sent = sample(1, embedding=b"\0\0\x80?", taken_at_ms=5, group="door", variant="int8")
    rows, dead_letters, _ = validate_samples([delivery(encode(SAMPLE, sent))])
    row = rows[photo_id(1)]
    assert dead_letters == []
    assert (row.edge_label, row.device_group, row.received_at_ms > 0) == (sent.label, sent.group, True)
    assert row.model_variant == "int8"
    same = set(Sample.__struct_fields__) - {"label", "group", "variant", "harvested_at_ms", "trace"}
    assert {name: getattr(row, name) for name in same} == {name: getattr(sent, name) for name in same}


def test_the_size_of_a_sample_is_that_of_its_picture():
    """The size is measured, not taken from the edge: pages and exports lay pictures out by it."""
    rows, _, _ = validate_samples([delivery(encode(SAMPLE, sample(1, width=9000, height=1)))])
    assert (rows[photo_id(1)].width, rows[photo_id(1)].height) == (160, 120)


def test_sample_twice_in_a_batch_is_one_row():
    """A sample that is resent before its receipt is one row, and so gets one receipt."""
    rows, _, _ = validate_samples([delivery(encode(SAMPLE, sample(1)))] * 2)
    assert list(rows) == [photo_id(1)]


@pytest.mark.parametrize(
    ("payload", "known", "reason"),
    [
        (b"", False, "sample: expected "),
        (jpeg(1), False, "sample: expected "),
        (b'{"photo_id": "%s"}' % photo_id(2).encode(), True, "sample: not a valid Sample: "),
    ],
)
def test_g4_invalid_sample_is_a_dead_letter_with_its_id_if_readable(payload, known, reason):
    """Its node is that of the topic, and its payload is unchanged."""
    rows, (dead_letter,), _ = validate_samples([delivery(payload, "edge-7")])
    assert rows == {}
    assert dead_letter.photo_id == (photo_id(2) if known else None)
    assert (dead_letter.node, dead_letter.payload) == ("edge-7", payload)
    assert dead_letter.reason.startswith(reason)


def test_g4_sample_with_too_many_pixels_is_a_dead_letter(monkeypatch):
    """Samples with more pixels than an edge can send are refused without decoding."""
    monkeypatch.setattr(ingest, "MAX_PIXELS", 160 * 120 - 1)
    _, (dead_letter,), _ = validate_samples([delivery(encode(SAMPLE, sample(1)))])
    assert dead_letter.photo_id == photo_id(1)
    assert dead_letter.reason == "image: expected at most 19199 pixels, got 160 x 120"
