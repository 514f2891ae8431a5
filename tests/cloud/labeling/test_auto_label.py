"""Rules of cloud/labeling/auto_label.py: which samples get a teacher's label, and when again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloud.dataset.example import Example
from cloud.dataset.store import Label, Row, Store
from cloud.dataset.training_set import examples
from cloud.labeling.auto_label import teach
from cloud.modeling.backbones import BackboneUnavailableError
from tests.conftest import jpeg

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")

LITE = ["efficientnet-lite0"]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings, shared by the tests."""
    return tmp_path_factory.mktemp("cache")


def row(example: Example, **fields: Any) -> Row:
    facts: dict[str, Any] = {"width": 80, "height": 60, "received_at_ms": 1, "lane": "hard"}
    return Row(photo_id=example.photo_id, image=example.image, **(facts | fields))


def people(store: Store, photos: Sequence[Example]) -> None:
    """Let a person label photos."""
    store.label([Label(photo_id=p.photo_id, label=p.label, by="ann", at_ms=1) for p in photos])


def teachers(store: Store) -> dict[str, tuple[str, str]]:
    """Return the teacher's labels and who gave them, by photo."""
    rows = store.scan(["photo_id", "teacher_label", "teacher_by"], where="teacher_label IS NOT NULL")
    return {str(r["photo_id"]): (str(r["teacher_label"]), str(r["teacher_by"])) for r in rows}


@pytest.mark.timeout(300)  # seconds by itself, minutes where many share the cores
def test_a_teacher_labels_samples_and_no_others(make_example: Any, cache_dir: Path, tmp_path: Path) -> None:
    """Right labels by a named teacher, once, slips aside; none on gold, audit or what a person labelled.

    An earlier teacher's label is corrected, or taken back where this one would say nothing.
    """
    store = Store.open(tmp_path / "dataset")
    known = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(16)]
    fresh = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(100, 106)]
    audit, gold = make_example("dawn", 200), make_example("dawn", 201)
    slip = replace(make_example("dusk", 202), label="du\nsk")
    store.upsert([*map(row, [*known, *fresh, slip]), row(audit, lane="audit"), row(gold, split="gold")])
    people(store, [*known, slip])
    for photo, label in ((fresh[0], "dusk"), (fresh[-1], "dusk")):
        said_before = {"photo_id": photo.photo_id, "label": label, "by": "teacher/old", "at_ms": 1}
        store.label([Label(**said_before, judge="teacher")])  # type: ignore[arg-type]  # as named
    doubted = replace(make_example("dawn", 203), image=jpeg(5))  # unlike all that people labelled
    facts = {"lane": "auto", "edge_label": "dusk", "confidence": 0.9}
    old = {"teacher_label": "dawn", "teacher_by": "teacher/old", "teacher_at_ms": 1}
    store.upsert([row(doubted, **facts, **old)])
    assert doubted.photo_id not in {example.photo_id for example in examples(store)}
    taught = teach(store, LITE, cache_dir)
    said = teachers(store)
    assert (taught.looked_at, taught.withdrawn) == (len(fresh) + 1, 1)
    believed = {example.photo_id: (example.label, example.source) for example in examples(store)}
    assert believed[doubted.photo_id] == ("dusk", "edge")  # which no training believes: it has a teacher
    assert said[fresh[0].photo_id] == ("dawn", taught.by)
    assert said[fresh[-1].photo_id] == ("dusk", "teacher/old")  # nothing to write
    assert taught.labelled == len(said) - 1 > len(fresh) // 2
    truth = {photo.photo_id: photo.label for photo in fresh}
    assert {photo_id: label for photo_id, (label, _) in said.items()}.items() <= truth.items()
    people(store, [audit])  # who judges, teaches nobody
    version = store.version
    again = teach(store, LITE, cache_dir)
    assert (again.by, again.labelled, again.withdrawn, store.version) == (taught.by, 0, 0, version)


def test_too_few_labels_make_no_teacher(make_example: Any, cache_dir: Path, tmp_path: Path) -> None:
    """Where it cannot be shown to be right, nothing is labelled, and that is said."""
    store = Store.open(tmp_path / "dataset")
    known = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(5)]
    store.upsert([*map(row, known), row(make_example("dawn", 100))])
    people(store, known)
    taught = teach(store, LITE, cache_dir)
    assert (taught.by, taught.labelled) == (None, 0)
    assert teachers(store) == {}


def test_a_network_without_weights_is_no_teacher(make_example: Any, tmp_path: Path) -> None:
    """A backbone that is trained from scratch sees nothing before."""
    store = Store.open(tmp_path / "dataset")
    known = [make_example(label, 1) for label in ("dawn", "dusk")]
    store.upsert(list(map(row, known)))
    people(store, known)
    with pytest.raises(BackboneUnavailableError, match="backbone 'xception-small' has no pretrained weights"):
        teach(store, ["xception-small"], tmp_path)
