"""Rules of cloud/evaluation/live_accuracy.py: audit statistics of versions in service."""

from typing import Any

import pytest

from cloud.dataset.store import Label, Row, Store
from cloud.evaluation.audit_set import AuditedPhoto
from cloud.evaluation.live_accuracy import (
    audit_stats_by_group,
    audit_stats_by_variant,
    audit_stats_by_version,
    audited_photos,
    count_neither,
    rollout_audits,
    told_accuracies,
    worst_group,
)
from schemas.class_names import NEITHER
from tests.cloud.judging import audit
from tests.conftest import jpeg

DAY_MS = 86_400_000


def row(number: int, version: int, label: str, lane: str = "audit", **fields: Any) -> Row:
    known = {
        "image": jpeg(number), "width": 160, "height": 120, "received_at_ms": 1, "node": "edge-1",
        "device": "pi-1", "lane": lane, "edge_label": label, "confidence": 0.9, "model": "pets",
    }  # fmt: skip
    return Row(photo_id=f"{number:032x}", model_version=version, **known | fields)


def test_only_audited_photos_with_a_human_label_count(tmp_path):
    """Grouped by the version that answered; other lanes, unlabelled and gold photos do not count."""
    store = Store.open(tmp_path / "dataset")
    assert audit_stats_by_version(store) == {}
    answers = [(1, "cat"), (1, "cat"), (1, "dog"), (2, "dog"), (2, "cat")]
    rows = [row(number, version, label) for number, (version, label) in enumerate(answers)]
    store.upsert([*rows, row(7, 2, "dog", "auto"), row(8, 2, "dog"), row(9, 2, "dog", split="gold")])
    truth = [Label(photo_id=f"{n:032x}", label="cat", by="ann", at_ms=1) for n in (0, 1, 2, 3, 4, 7, 9)]
    store.label(truth)
    assert audit_stats_by_version(store) == {1: audit(3, 2), 2: audit(2, 1)}
    assert audited_photos(store, 3) == []
    two = audited_photos(store, 2)
    assert {(photo.edge_label, photo.human_label) for photo in two} == {("dog", "cat"), ("cat", "cat")}
    assert two[0] == AuditedPhoto(two[0].edge_label, "cat", two[0].confidence, None)


def test_variants_of_a_version_have_their_own_audits(tmp_path):
    """Where edges of a version serve several variants; an older row, or one of the graph, has no name."""
    store = Store.open(tmp_path / "dataset")
    answers = [
        (1, "cat", "int8"),
        (1, "dog", "int8"),
        (1, "cat", "float32"),
        (1, "cat", ""),
        (1, "cat", None),
    ]
    answers += [(2, "cat", "int8")]
    rows = [row(n, version, label, model_variant=name) for n, (version, label, name) in enumerate(answers)]
    store.upsert(rows)
    store.label([Label(photo_id=one.photo_id, label="cat", by="ann", at_ms=1) for one in rows])
    assert audit_stats_by_variant(store) == {
        1: {"": audit(2, 2), "float32": audit(1, 1), "int8": audit(2, 1)}
    }


def test_a_photo_of_neither_class_is_not_a_mistake(tmp_path):
    """No answer to it can be correct, so it is left out of the accuracy and counted separately."""
    store = Store.open(tmp_path / "dataset")
    store.upsert([row(n, 1, "cat") for n in range(3)] + [row(3, 2, "cat"), row(4, 1, "cat", "hard")])
    for number, label in enumerate(["cat", NEITHER, NEITHER, NEITHER, NEITHER]):
        store.label([Label(photo_id=f"{number:032x}", label=label, by="ann", at_ms=1)])
    assert audit_stats_by_version(store) == {1: audit(1, 1)}
    assert len(audited_photos(store, 1)) == 1
    assert count_neither(store) == {1: 2, 2: 1}


def test_audited_photos_have_sampling_weights(tmp_path):
    """Ten correct photos drawn with 2 % and ten wrong ones drawn with 10 % give an accuracy of 5/6."""
    store = Store.open(tmp_path / "dataset")
    drawn = [row(n, 1, "cat" if n < 10 else "dog", inclusion=0.02 if n < 10 else 0.1) for n in range(20)]
    store.upsert(drawn)
    store.label([Label(photo_id=one.photo_id, label="cat", by="ann", at_ms=1) for one in drawn])
    assert audit_stats_by_version(store)[1].accuracy == pytest.approx(5 / 6)


def test_versions_of_a_rollout_are_compared_on_the_same_days(tmp_path):
    """Audits since the rollout began, and separately the champion's of the 14 days before; none older."""
    store = Store.open(tmp_path / "dataset")
    days = {1: [5, 10, 19, 20, 21, 22], 2: [19, 20, 25], 3: [21]}
    rows = [
        row(version * 100 + day, version, "cat" if day % 2 else "dog", received_at_ms=day * DAY_MS)
        for version in days
        for day in days[version]
    ]
    store.upsert(rows)
    store.label([Label(photo_id=one.photo_id, label="cat", by="ann", at_ms=1) for one in rows])
    found = rollout_audits(store, 1, 2, 20 * DAY_MS)
    assert found.champion == audit(3, 1)
    assert found.challenger == audit(2, 1)
    assert found.champion_before == audit(2, 1)


def test_each_group_has_its_own_accuracy(tmp_path):
    """By version and by the group when the photo was answered; photos of no group are in none."""
    store = Store.open(tmp_path / "dataset")
    groups = ["meters", "meters", "doors", "", None, "meters"]
    rows = [
        row(number, 2 if number == 5 else 1, "cat" if number else "dog", device_group=group)
        for number, group in enumerate(groups)
    ]
    store.upsert(rows)
    store.label([Label(photo_id=one.photo_id, label="cat", by="ann", at_ms=1) for one in rows])
    assert audit_stats_by_group(store) == {
        1: {"doors": audit(1, 1), "meters": audit(2, 1)},
        2: {"meters": audit(1, 1)},
    }


def test_the_worst_group_is_one_with_enough_audits():
    """A group with a handful of photos is not called the worst one by chance."""
    assert worst_group({"new": audit(3, 0), "doors": audit(40, 30), "meters": audit(40, 38)}) == audit(40, 30)
    assert worst_group({"new": audit(3, 0)}) == audit(0, 0)


def test_an_accuracy_is_told_from_twenty_audits_on(tmp_path):
    """Of all devices and of the worst group, by the version in service alone."""
    store = Store.open(tmp_path / "dataset")
    rows = [
        row(number, 1 if number < 60 else 2, "cat" if number % 4 else "dog", device_group=group)
        for number, group in enumerate(["doors"] * 19 + ["meters"] * 24 + [""] * 20)
    ]
    store.upsert(rows)
    store.label([Label(photo_id=one.photo_id, label="cat", by="ann", at_ms=1) for one in rows])
    assert told_accuracies(store, 1) == {"all": 0.75, "worst_group": 0.75}
    assert told_accuracies(store, 2) == {}
