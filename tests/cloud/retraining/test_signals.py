"""Rules of cloud/retraining/signals.py: new is what the last training did not see."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from cloud.dataset.rows.forgotten import forget
from cloud.dataset.store import Label, Row, Store
from cloud.evaluation.metrics import measure
from cloud.evaluation.paired_comparison import Comparison
from cloud.evaluation.promotion_gate import Verdict
from cloud.registry.model_card import Card
from cloud.retraining.signals import drift_signals
from cloud.retraining.triggers import Triggers, labels_missing
from schemas.class_names import NEITHER
from tests.cloud.bundles import card
from tests.cloud.judging import audit

RULES = Triggers(drift_samples=50)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "dataset")


def harvest(store: Store, *numbers: int, **fields: Any) -> None:
    facts: dict[str, Any] = {"image": b"x", "width": 1, "height": 1, "lane": "hard", "edge_label": "cat"}
    facts |= {"confidence": 0.9, "model_version": 1} | fields
    store.upsert([Row(photo_id=f"{n:032x}", received_at_ms=n, **facts) for n in numbers])


def label(store: Store, label: str, *numbers: int, at_ms: int = 1) -> None:
    store.label([Label(photo_id=f"{n:032x}", label=label, by="ann", at_ms=at_ms) for n in numbers])


def trained(store: Store, version: int, decision: Any = None) -> Card:
    """Return the card of a version trained on the present dataset."""
    metrics = measure(np.eye(2)[[0] * 95 + [1] * 5], np.zeros(100, np.int64), ["cat", "dog"])
    same = Comparison(9, 0.9, 0.9, 0, 0, 1.0, 0.0, 0.0)
    verdict = decision and Verdict(decision, 1, ["because"], same, None, None)
    return structs.replace(
        card(version, verdict),
        dataset_version=store.version,
        metrics=metrics,
        created_at=(datetime.now(UTC) - timedelta(seconds=90)).isoformat(timespec="seconds"),
    )


def test_everything_is_new_before_the_first_version(store: Store) -> None:
    """Labels of photos that are not stored yet and of gold photos are not counted."""
    harvest(store, 1, 2, 3)
    harvest(store, 4, split="gold")
    label(store, "cat", 1, 2, 4, 9)
    facts = drift_signals(store, [], RULES)
    assert (facts.labels, facts.samples, facts.last_round_s) == (2, 4, None)
    assert (facts.classes, labels_missing(facts, Triggers(labels=1))) == (1, 1), "no training of one class"
    assert (len(facts.reference), facts.audit.photos, facts.accuracy_low) == (0, 0, None)


def test_a_photo_of_neither_starts_no_round(store: Store) -> None:
    """A photo of no class teaches nothing, and no answer to it can be correct."""
    first = trained(store, 1)
    harvest(store, 1, 2, lane="audit")
    label(store, NEITHER, 1)
    label(store, "cat", 2)
    facts = drift_signals(store, [first], RULES)
    assert (facts.labels, facts.audit) == (1, audit(1, 1))


def test_photos_of_the_last_training_are_not_new(store: Store) -> None:
    """Labels and samples of the last training are not new; a label that was changed since is."""
    harvest(store, 1, 2, 3)
    label(store, "cat", 1, 2)
    first = trained(store, 1)
    facts = drift_signals(store, [first], RULES)
    assert (facts.labels, facts.samples) == (0, 0)
    assert 85 < (facts.last_round_s or 0) < 3600
    harvest(store, 4)
    label(store, "dog", 2, 3, at_ms=2)
    facts = drift_signals(store, [first], RULES)
    assert (facts.labels, facts.samples) == (2, 1)
    later = drift_signals(store, [first, trained(store, 2, "keep")], RULES)
    assert (later.labels, later.samples) == (0, 0)


def test_everything_is_new_to_a_model_from_elsewhere(store: Store) -> None:
    """A card without a dataset version makes everything new."""
    harvest(store, 1)
    label(store, "cat", 1)
    facts = drift_signals(store, [structs.replace(card(1), dataset_version=None)], RULES)
    assert (facts.labels, facts.samples) == (1, 1)


def test_a_forgetting_makes_nothing_new(store: Store) -> None:
    """Where the version is gone, what came or was labelled after the training is new, and no more."""
    harvest(store, 1, 2, 3)
    label(store, "cat", 1, 2)
    first = trained(store, 1)
    store.change([f"{3:032x}"], lambda record: forget(record, 9))
    store.purge()
    facts = drift_signals(store, [first], RULES)
    assert (facts.labels, facts.samples) == (0, 0)
    now = first.created_at_ms + 1
    harvest(store, now)
    label(store, "dog", 2, now, at_ms=now)
    facts = drift_signals(store, [first], RULES)
    assert (facts.labels, facts.samples, facts.classes) == (2, 1, 2)


def test_confidences_are_those_of_the_version_in_service(store: Store) -> None:
    """Confidences before and since the last round; those of a version that was not promoted are ignored."""
    harvest(store, *range(60), confidence=0.9)
    harvest(store, *range(60, 90), confidence=0.1, model_version=2)
    lineage = [trained(store, 1), trained(store, 2, "keep")]
    harvest(store, *range(100, 160), confidence=0.5)
    facts = drift_signals(store, lineage, RULES)
    np.testing.assert_allclose(facts.reference, [0.9] * 50, atol=1e-6)
    np.testing.assert_allclose(facts.recent, [0.5] * 50, atol=1e-6)
    assert facts.compared == "samples"


def test_the_newest_samples_of_each_side_are_compared(store: Store) -> None:
    """The newest ones of each side are compared, in order of arrival, and no others are read."""
    harvest(store, *range(70), confidence=0.1)
    harvest(store, *range(70, 120), confidence=0.2)
    lineage = [trained(store, 1)]
    harvest(store, *range(120, 150), confidence=0.3)
    harvest(store, *range(150, 200), confidence=0.4)
    read = list[int]()

    class Counted(Store):
        def scan(self, columns: Any, **words: Any) -> Any:
            for row in super().scan(columns, **words):
                read.append(1)
                yield row

    facts = drift_signals(Counted(store.table), lineage, RULES)
    np.testing.assert_allclose(facts.reference, [0.2] * 50, atol=1e-6)
    np.testing.assert_allclose(facts.recent, [0.4] * 50, atol=1e-6)
    assert len(read) == 2 * 50


def test_a_round_with_too_few_samples_does_not_shorten_the_reference(store: Store) -> None:
    """The first samples of all are the reference then, and no sample is on both sides."""
    harvest(store, *range(10), confidence=0.1)
    lineage = [trained(store, 1)]
    harvest(store, *range(10, 70), confidence=0.2)
    facts = drift_signals(store, lineage, RULES)
    np.testing.assert_allclose(facts.reference, [0.1] * 10 + [0.2] * 40, atol=1e-6)
    np.testing.assert_allclose(facts.recent, [0.2] * 20, atol=1e-6)


def test_drift_is_of_audits_where_there_are_enough(store: Store) -> None:
    """Audits do not depend on the harvest policy; other samples are used only if there are too few audits."""
    harvest(store, *range(50), confidence=0.9, lane="audit")
    harvest(store, *range(50, 100), confidence=0.3)
    lineage = [trained(store, 1)]
    harvest(store, *range(100, 149), confidence=0.8, lane="audit")
    harvest(store, *range(150, 200), confidence=0.4)
    assert drift_signals(store, lineage, RULES).compared == "samples"
    harvest(store, 149, confidence=0.8, lane="audit")
    facts = drift_signals(store, lineage, RULES)
    assert facts.compared == "audits"
    np.testing.assert_allclose(facts.reference, [0.9] * 50, atol=1e-6)
    np.testing.assert_allclose(facts.recent, [0.8] * 50, atol=1e-6)


def test_audits_are_answers_of_the_version_in_service_with_new_labels(store: Store) -> None:
    """Audits that the version in service answered, with labels that no round has seen, each by its weight."""
    harvest(store, 1, 2, lane="audit")
    label(store, "dog", 1)
    first = trained(store, 1)
    harvest(store, 3, lane="audit", inclusion=0.02)
    harvest(store, 4, lane="audit", inclusion=0.01)
    harvest(store, 7, lane="audit", split="gold")
    harvest(store, 5, lane="audit", model_version=7)
    harvest(store, 6)
    label(store, "cat", 2, 3, 6, 7)
    label(store, "dog", 4, 5)
    facts = drift_signals(store, [first], RULES)
    assert (facts.audit.photos, facts.audit.correct) == (3, 2)
    assert facts.audit.accuracy == pytest.approx(51 / 151), "as many as each was drawn from"
    assert facts.accuracy_low == first.metrics.accuracy_low  # type: ignore[union-attr]  # it was measured
