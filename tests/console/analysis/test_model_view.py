"""Rules of console/analysis/model_view.py: what the pages show of cards, and which answers were wrong."""

from msgspec import structs

from cloud.dataset.store import Row, Store
from cloud.evaluation.metrics import Metrics
from cloud.evaluation.promotion_gate import Verdict
from cloud.registry.gold_mistakes import GoldMistake, GoldMistakes
from console.analysis.model_view import (
    MAX_CLASSES,
    confusion,
    mistakes,
    mistakes_on_gold,
    recalls,
    versions,
)
from schemas.class_names import NEITHER
from schemas.messages import Release, ServedModel, Status
from tests.cloud.bundles import card
from tests.nodes import photo_id

METRICS = Metrics(30, 0.9, 0.75, 0.96, {"cat": 0.95, "dog": 0.8}, [[19, 1], [2, 8]], 0.02, 0.9)


def test_a_row_of_the_confusion_matrix_is_a_true_class():
    """With shares of the row; of too many classes there is no matrix, nor without gold photos."""
    one = structs.replace(card(1), metrics=METRICS)
    cat, dog = confusion(one)
    assert (cat.name, cat.photos, [cell.photos for cell in cat.cells]) == ("cat", 20, [19, 1])
    assert [(cell.right, cell.tone) for cell in dog.cells] == [(False, 2), (True, 8)]
    assert confusion(card(1)) == []
    assert confusion(structs.replace(one, classes=["x"] * (MAX_CLASSES + 1))) == []


def test_the_worst_recall_comes_first():
    """Each with the interval of its photos."""
    found = recalls(structs.replace(card(1), metrics=METRICS))
    assert [(one.name, one.photos) for one in found] == [("dog", 10), ("cat", 20)]
    assert all(one.low < one.share < one.high for one in found)


def test_versions_are_listed_newest_first_with_the_nodes_that_serve_them():
    """And with what became of them."""
    kept = structs.replace(card(2), verdict=Verdict("keep", 1, ["worse"], None, None, None))
    back = structs.replace(card(3), rolled_back=True)
    status = Status(
        node="edge-1", name="edge", state="online", at_ms=1, since_ms=1, software="1", run_id="1",
        model=ServedModel(name="pets", version=1, state="available"),
    )  # fmt: skip
    found = versions([card(1), kept, back], [status], {})
    assert [(one.card.version, one.state, one.nodes) for one in found] == [
        (3, "returned", []),
        (2, "kept", []),
        (1, "promoted", ["edge-1"]),
    ]


def test_a_version_that_is_tried_is_not_released():
    """What the node serves is; where another node has the version for every device, it is released."""
    shadow = Release(
        node="edge-1", model="pets", version=2, url="file:///2.tar", sha256="0" * 64, size_bytes=1,
        classes=["cat"], released_at_ms=1, stage="shadow", baseline=1,
    )  # fmt: skip
    cards = [card(1), card(2)]
    assert [one.state for one in versions(cards, [], {"edge-1": shadow})] == ["tried", "released"]
    whole = structs.replace(shadow, node="edge-2", stage="all", baseline=None)
    found = versions(cards, [], {"edge-1": shadow, "edge-2": whole})
    assert [one.state for one in found] == ["released", "released"]


def test_a_mistake_goes_with_its_photo(tmp_path):
    """A photo that was taken out leaves a row without its picture, and no tile on the page of a version."""
    store = Store.open(tmp_path / "dataset")
    found = [GoldMistake(photo_id(at), "cat", "dog", 0.9) for at in (1, 2)]
    facts = {"image": b"x", "width": 1, "height": 1, "received_at_ms": 1}
    store.upsert([Row(photo_id=one.photo_id, **facts) for one in found])
    store.change([photo_id(1)], lambda row: row | {"image": None, "forgotten_at_ms": 1})
    assert [one.photo_id for one in mistakes_on_gold(store, GoldMistakes(9, 2, found))] == [photo_id(2)]


def test_mistakes_are_answers_that_a_person_labelled_otherwise(tmp_path):
    """The surest first; photos of no class, of another version or with the same label are none."""
    store = Store.open(tmp_path / "dataset")
    said = {"human_by": "ann", "human_at_ms": 1}
    facts = {
        "image": b"x",
        "width": 1,
        "height": 1,
        "received_at_ms": 1,
        "model": "pets",
        "edge_label": "cat",
    }
    cases = [(0.6, "dog", 1), (0.9, "dog", 1), (0.9, "cat", 1), (0.9, NEITHER, 1), (0.9, "dog", 2)]
    store.upsert(
        [
            Row(
                photo_id=photo_id(at),
                confidence=sure,
                human_label=label,
                model_version=version,
                **facts,
                **said,
            )
            for at, (sure, label, version) in enumerate(cases)
        ]
    )
    found = mistakes(store, 1)
    assert [(one.photo_id, one.answer, one.truth) for one in found] == [
        (photo_id(1), "cat", "dog"),
        (photo_id(0), "cat", "dog"),
    ]
