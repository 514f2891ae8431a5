from cloud.accuracy import audited, audits, of_neither
from cloud.alarms import Audit
from cloud.policy import Audited
from cloud.store import Label, Row, Store
from schemas.messages import NEITHER
from tests.conftest import jpeg


def row(number: int, version: int, label: str, lane: str = "audit") -> Row:
    return Row(
        photo_id=f"{number:032x}",
        image=jpeg(number),
        width=160,
        height=120,
        received_at_ms=1,
        node="edge-1",
        device="pi-1",
        lane=lane,
        edge_label=label,
        confidence=0.9,
        model="pets",
        model_version=version,
    )


def test_accuracy_is_of_audited_photos_that_a_person_labelled(tmp_path):
    """By the version that answered; other lanes, and photos that no person has seen, do not count."""
    store = Store.open(tmp_path / "dataset")
    assert audits(store) == {}
    said = [(1, "cat"), (1, "cat"), (1, "dog"), (2, "dog"), (2, "cat")]
    rows = [row(number, version, label) for number, (version, label) in enumerate(said)]
    store.upsert([*rows, row(7, 2, "dog", "auto"), row(8, 2, "dog")])
    truth = [Label(photo_id=f"{n:032x}", label="cat", by="ann", at_ms=1) for n in (0, 1, 2, 3, 4, 7)]
    store.label(truth)
    assert audits(store) == {1: Audit(3, 2), 2: Audit(2, 1)}
    assert audited(store, 3) == []
    two = audited(store, 2)
    assert {(photo.edge_label, photo.human_label) for photo in two} == {("dog", "cat"), ("cat", "cat")}
    assert two[0] == Audited(two[0].edge_label, "cat", two[0].confidence, None)
    low, high = Audit(3, 2).interval
    assert low < Audit(3, 2).accuracy < high


def test_a_photo_of_neither_is_no_mistake_and_is_counted_apart(tmp_path):
    """No answer to it can be right, so it says nothing of how often answers are; their number is told."""
    store = Store.open(tmp_path / "dataset")
    store.upsert([row(n, 1, "cat") for n in range(3)] + [row(3, 2, "cat"), row(4, 1, "cat", "hard")])
    for number, label in enumerate(["cat", NEITHER, NEITHER, NEITHER, NEITHER]):
        store.label([Label(photo_id=f"{number:032x}", label=label, by="ann", at_ms=1)])
    assert audits(store) == {1: Audit(1, 1)}
    assert len(audited(store, 1)) == 1
    assert of_neither(store) == {1: 2, 2: 1}
