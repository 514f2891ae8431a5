import pytest

from bus.mqtt.subscription import Delivery
from cloud.collector import ingest
from cloud.collector.ingest import sort
from schemas.codec import encode
from schemas.messages import Sample
from schemas.topics import SAMPLE
from tests.cloud.collector.test_collector import sample
from tests.conftest import jpeg
from tests.nodes import NODE, photo_id


def delivery(payload: bytes, node: str = NODE) -> Delivery[Sample]:
    return Delivery(SAMPLE, {"node": node}, payload, retained=False, arrived_at=0.0, ack=lambda: None)


def test_a_sample_becomes_a_row_with_all_it_said():
    """Nothing that the edge knows of a photo is lost on the way into the dataset."""
    said = sample(1, embedding=b"\0\0\x80?", taken_at_ms=5)
    rows, refused = sort([delivery(encode(SAMPLE, said))])
    row = rows[photo_id(1)]
    assert refused == []
    assert (row.edge_label, row.received_at_ms > 0) == (said.label, True)
    same = set(Sample.__struct_fields__) - {"label", "harvested_at_ms"}
    assert {name: getattr(row, name) for name in same} == {name: getattr(said, name) for name in same}


def test_a_sample_that_comes_twice_in_a_batch_is_one_row():
    """Sent again before its receipt: one row, and so one receipt."""
    rows, _ = sort([delivery(encode(SAMPLE, sample(1)))] * 2)
    assert list(rows) == [photo_id(1)]


@pytest.mark.parametrize(
    ("payload", "known"),
    [(b"", False), (jpeg(1), False), (b'{"photo_id": "%s"}' % photo_id(2).encode(), True)],
)
def test_g4_what_is_no_sample_is_refused_with_its_id_if_it_has_one(payload, known):
    """The node is that of the topic, the payload is kept as it came."""
    rows, (refused,) = sort([delivery(payload, "edge-7")])
    assert rows == {}
    assert refused.photo_id == (photo_id(2) if known else None)
    assert (refused.node, refused.payload) == ("edge-7", payload)
    assert refused.reason.startswith("sample: expected ")


def test_g4_a_sample_with_too_many_pixels_is_refused(monkeypatch):
    """One hostile picture costs no more than the edge's own would."""
    monkeypatch.setattr(ingest, "MAX_PIXELS", 160 * 120 - 1)
    _, (refused,) = sort([delivery(encode(SAMPLE, sample(1)))])
    assert refused.photo_id == photo_id(1)
    assert refused.reason == "image: expected at most 19199 pixels, got 160 x 120"
