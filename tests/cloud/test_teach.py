"""Rules of cloud/teach.py: which samples get a teacher's label, and when again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bus.presence import now_ms
from cloud.examples import Example
from cloud.store import Label, Row, Store
from cloud.teach import teach

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


def test_a_teacher_labels_samples_and_no_others(make_example: Any, cache_dir: Path, tmp_path: Path) -> None:
    """Right labels by a named teacher; none on gold, audit or what a person labelled; once."""
    store = Store.open(tmp_path / "dataset")
    known = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(20)]
    fresh = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(100, 105)]
    audit, gold = make_example("dawn", 200), make_example("dawn", 201)
    store.upsert([*map(row, known), *map(row, fresh), row(audit, lane="audit"), row(gold, split="gold")])
    assert teachers(store) == {}
    people(store, known[:20] + known[30:])
    taught = teach(store, LITE, cache_dir)
    said = teachers(store)
    assert taught.looked_at == 10 + 10
    assert taught.labelled == len(said) > 10
    truth = {p.photo_id: p.label for p in [*fresh, *known[20:30]]}
    assert {photo_id: label for photo_id, (label, _) in said.items()}.items() <= truth.items()
    assert {by for _, by in said.values()} == {taught.by}
    version = store.version
    again = teach(store, LITE, cache_dir)
    assert (again.by, again.labelled, store.version) == (taught.by, 0, version)
    wrong = next(p for p in fresh if p.photo_id in said)
    other = {"dawn": "dusk", "dusk": "dawn"}[wrong.label]
    mistake = {"photo_id": wrong.photo_id, "label": other, "at_ms": now_ms()}
    store.label([Label(**mistake, by="teacher/old", judge="teacher")])
    people(store, known[20:22])
    newer = teach(store, LITE, cache_dir)
    assert newer.by != taught.by
    assert teachers(store)[wrong.photo_id] == (wrong.label, newer.by)
    assert {by for _, by in teachers(store).values()} <= {taught.by, newer.by}


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
    with pytest.raises(ValueError, match="expected one with weights of its own, got 'xception-small'"):
        teach(store, ["xception-small"], tmp_path)
