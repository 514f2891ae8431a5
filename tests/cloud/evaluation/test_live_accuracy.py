from typing import Any

import pytest

from cloud.dataset.store import Label, Row, Store
from cloud.evaluation.audit_set import Audited
from cloud.evaluation.live_accuracy import audited, audits, of_neither, trial_audits
from schemas.messages import NEITHER
from tests.cloud.judging import audit
from tests.conftest import jpeg

DAY_MS = 86_400_000


def row(number: int, version: int, label: str, lane: str = "audit", **fields: Any) -> Row:
    known = {
        "image": jpeg(number), "width": 160, "height": 120, "received_at_ms": 1, "node": "edge-1",
        "device": "pi-1", "lane": lane, "edge_label": label, "confidence": 0.9, "model": "pets",
    }  # fmt: skip
    return Row(photo_id=f"{number:032x}", model_version=version, **known | fields)


def test_accuracy_is_of_audited_photos_that_a_person_labelled(tmp_path):
    """By the version that answered; other lanes, and photos that no person has seen, do not count."""
    store = Store.open(tmp_path / "dataset")
    assert audits(store) == {}
    said = [(1, "cat"), (1, "cat"), (1, "dog"), (2, "dog"), (2, "cat")]
    rows = [row(number, version, label) for number, (version, label) in enumerate(said)]
    store.upsert([*rows, row(7, 2, "dog", "auto"), row(8, 2, "dog"), row(9, 2, "dog", split="gold")])
    truth = [Label(photo_id=f"{n:032x}", label="cat", by="ann", at_ms=1) for n in (0, 1, 2, 3, 4, 7, 9)]
    store.label(truth)
    assert audits(store) == {1: audit(3, 2), 2: audit(2, 1)}
    assert audited(store, 3) == []
    two = audited(store, 2)
    assert {(photo.edge_label, photo.human_label) for photo in two} == {("dog", "cat"), ("cat", "cat")}
    assert two[0] == Audited(two[0].edge_label, "cat", two[0].confidence, None)


def test_a_photo_of_neither_is_no_mistake_and_is_counted_apart(tmp_path):
    """No answer to it can be right, so it says nothing of how often answers are; their number is told."""
    store = Store.open(tmp_path / "dataset")
    store.upsert([row(n, 1, "cat") for n in range(3)] + [row(3, 2, "cat"), row(4, 1, "cat", "hard")])
    for number, label in enumerate(["cat", NEITHER, NEITHER, NEITHER, NEITHER]):
        store.label([Label(photo_id=f"{number:032x}", label=label, by="ann", at_ms=1)])
    assert audits(store) == {1: audit(1, 1)}
    assert len(audited(store, 1)) == 1
    assert of_neither(store) == {1: 2, 2: 1}


def test_each_audited_photo_stands_for_those_that_it_was_drawn_from(tmp_path):
    """While 2 % were drawn ten were right, while 10 % were drawn ten were wrong: five of six are right."""
    store = Store.open(tmp_path / "dataset")
    drawn = [row(n, 1, "cat" if n < 10 else "dog", inclusion=0.02 if n < 10 else 0.1) for n in range(20)]
    store.upsert(drawn)
    store.label([Label(photo_id=one.photo_id, label="cat", by="ann", at_ms=1) for one in drawn])
    assert audits(store)[1].accuracy == pytest.approx(5 / 6)


def test_versions_of_a_trial_are_compared_on_the_same_days(tmp_path):
    """Since it began, and apart from that the champion's of the 14 days before; older ones count no more."""
    store = Store.open(tmp_path / "dataset")
    days = {1: [5, 10, 19, 20, 21, 22], 2: [19, 20, 25], 3: [21]}
    rows = [
        row(version * 100 + day, version, "cat" if day % 2 else "dog", received_at_ms=day * DAY_MS)
        for version in days
        for day in days[version]
    ]
    store.upsert(rows)
    store.label([Label(photo_id=one.photo_id, label="cat", by="ann", at_ms=1) for one in rows])
    found = trial_audits(store, 1, 2, 20 * DAY_MS)
    assert found.champion == audit(3, 1)
    assert found.challenger == audit(2, 1)
    assert found.before == audit(2, 1)
