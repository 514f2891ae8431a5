"""Rules of cloud/labeling/auto_label.py: which samples get a teacher's label, and when it changes."""

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
from tests.cloud import tiny
from tests.conftest import jpeg

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")

LITE = [tiny.NAME]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache of embeddings, shared by the tests."""
    return tmp_path_factory.mktemp("cache")


def row(example: Example, **fields: Any) -> Row:
    facts: dict[str, Any] = {"width": 80, "height": 60, "received_at_ms": 1, "lane": "hard"}
    return Row(photo_id=example.photo_id, image=example.image, **(facts | fields))


def label_by_person(store: Store, photos: Sequence[Example]) -> None:
    """Store human labels of photos."""
    store.label([Label(photo_id=p.photo_id, label=p.label, by="ann", at_ms=1) for p in photos])


def teacher_labels(store: Store) -> dict[str, tuple[str, str]]:
    """Return teacher labels and the teachers' names, by photo id."""
    rows = store.scan(["photo_id", "teacher_label", "teacher_by"], where="teacher_label IS NOT NULL")
    return {str(r["photo_id"]): (str(r["teacher_label"]), str(r["teacher_by"])) for r in rows}


def test_teacher_labels_unlabelled_samples_only(make_example: Any, cache_dir: Path, tmp_path: Path) -> None:
    """Samples get correct labels once; gold, audit and human-labelled photos get none.

    A label by an earlier teacher is replaced, or withdrawn where this teacher abstains.
    """
    store = Store.open(tmp_path / "dataset")
    known = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(16)]
    fresh = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(100, 106)]
    audit, gold = make_example("dawn", 200), make_example("dawn", 201)
    misspelt = replace(make_example("dusk", 202), label="du sk")
    store.upsert([*map(row, [*known, *fresh, misspelt]), row(audit, lane="audit"), row(gold, split="gold")])
    label_by_person(store, [*known, misspelt])
    for photo, label in ((fresh[0], "dusk"), (fresh[-1], "dusk")):
        earlier = {"photo_id": photo.photo_id, "label": label, "by": "teacher/old", "at_ms": 1}
        store.label([Label(**earlier, annotator="teacher")])  # type: ignore[arg-type]  # as named
    unfamiliar = replace(make_example("dawn", 203), image=jpeg(5))  # out of distribution
    facts = {"lane": "auto", "edge_label": "dusk", "confidence": 0.9}
    old = {"teacher_label": "dawn", "teacher_by": "teacher/old", "teacher_at_ms": 1}
    store.upsert([row(unfamiliar, **facts, **old)])
    assert unfamiliar.photo_id not in {example.photo_id for example in examples(store)}
    result = teach(store, LITE, cache_dir)
    labels = teacher_labels(store)
    assert (result.examined, result.withdrawn) == (len(fresh) + 1, 1)
    resolved = {example.photo_id: (example.label, example.source) for example in examples(store)}
    assert resolved[unfamiliar.photo_id] == ("dusk", "edge")  # its teacher label was withdrawn
    assert labels[fresh[0].photo_id] == ("dawn", result.by)
    assert labels[fresh[-1].photo_id] == ("dusk", "teacher/old")  # the same label is not written again
    assert result.labelled == len(labels) - 1 > len(fresh) // 2
    truth = {photo.photo_id: photo.label for photo in fresh}
    assert {photo_id: label for photo_id, (label, _) in labels.items()}.items() <= truth.items()
    label_by_person(store, [audit])  # audit labels do not change the teacher
    version = store.version
    again = teach(store, LITE, cache_dir)
    assert (again.by, again.labelled, again.withdrawn, store.version) == (result.by, 0, 0, version)


def test_too_few_labels_make_no_teacher(make_example: Any, cache_dir: Path, tmp_path: Path) -> None:
    """With too few human labels to measure its precision there is no teacher, and nothing is labelled."""
    store = Store.open(tmp_path / "dataset")
    known = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(5)]
    store.upsert([*map(row, known), row(make_example("dawn", 100))])
    label_by_person(store, known)
    result = teach(store, LITE, cache_dir)
    assert (result.by, result.labelled) == (None, 0)
    assert teacher_labels(store) == {}


def test_labels_before_the_last_training_vouch_for_no_hard_photos(
    make_example: Any, cache_dir: Path, tmp_path: Path
) -> None:
    """A teacher that was right in earlier light is wrong on hard photos first; it labels others still."""
    store = Store.open(tmp_path / "dataset")
    known = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(16)]
    fresh = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(100, 103)]
    store.upsert(list(map(row, known)))
    label_by_person(store, known)
    store.tag("model-1")
    store.upsert([*map(row, fresh[::2]), *(row(photo, lane="auto") for photo in fresh[1::2])])
    teach(store, LITE, cache_dir)
    assert set() < teacher_labels(store).keys() <= {photo.photo_id for photo in fresh[1::2]}


def test_without_a_teacher_no_label_of_an_earlier_one_stays(
    make_example: Any, cache_dir: Path, tmp_path: Path
) -> None:
    """While all human labels are audits, or of one class, there is no teacher; that fails no round."""
    store = Store.open(tmp_path / "dataset")
    audits = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(3)]
    taught, one = make_example("dawn", 100), make_example("dawn", 101)
    store.upsert([*(row(photo, lane="audit") for photo in audits), row(taught), row(one)])
    label_by_person(store, audits)
    earlier = {"photo_id": taught.photo_id, "label": "dusk", "by": "teacher/old", "at_ms": 1}
    store.label([Label(**earlier, annotator="teacher")])  # type: ignore[arg-type]  # as named
    result = teach(store, LITE, cache_dir)
    assert (result.by, result.withdrawn, teacher_labels(store)) == (None, 1, {})
    label_by_person(store, [one])
    version = store.version
    again = teach(store, LITE, cache_dir)
    assert (again.by, again.withdrawn, store.version) == (None, 0, version)


def test_backbone_without_pretrained_weights_is_refused(make_example: Any, tmp_path: Path) -> None:
    """A backbone that is trained from scratch cannot embed photos for a teacher."""
    store = Store.open(tmp_path / "dataset")
    known = [make_example(label, 1) for label in ("dawn", "dusk")]
    store.upsert(list(map(row, known)))
    label_by_person(store, known)
    with pytest.raises(BackboneUnavailableError, match="backbone 'xception-small' has no pretrained weights"):
        teach(store, ["xception-small"], tmp_path)
