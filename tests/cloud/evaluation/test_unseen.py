"""Rules of cloud/evaluation/unseen.py: which photos judge a version, with any clocks."""

from pathlib import Path

import pytest

from cloud.dataset.store import Row, Store
from cloud.evaluation.unseen import unseen_photos

ARRIVED_MS = 1_000_000
DAY_MS = 86_400_000


def labelled(number: int, received_at_ms: int = ARRIVED_MS, label: str | None = "cat") -> Row:
    said = {} if label is None else {"human_label": label, "human_by": "ann", "human_at_ms": 9}
    photo = {"image": b"x", "width": 1, "height": 1, "received_at_ms": received_at_ms, "lane": "audit"}
    return Row(photo_id=f"{number:032x}", **photo, **said)  # type: ignore[arg-type]  # keywords of the test


def numbers(found: frozenset[str]) -> list[int]:
    return sorted(int(photo_id, 16) for photo_id in found)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "dataset")


@pytest.mark.parametrize("trainers_clock_ms", [-DAY_MS, 0, DAY_MS])
def test_what_the_version_was_trained_on_judges_nothing(store: Store, trainers_clock_ms: int) -> None:
    """Photos that the version's dataset had are seen and later ones are not, however wrong the clocks are."""
    store.upsert([labelled(1), labelled(2, label=None)])
    trained_at = store.version
    store.upsert([labelled(3, ARRIVED_MS + 60_000), labelled(4, ARRIVED_MS + 60_000, label=None)])
    created_at_ms = ARRIVED_MS + 1000 + trainers_clock_ms
    assert numbers(unseen_photos(store, trained_at, created_at_ms)) == [3]
    assert numbers(unseen_photos(store, trained_at, created_at_ms, version=trained_at)) == []


def test_without_its_dataset_the_time_decides(store: Store) -> None:
    """A version whose dataset is unknown or gone has seen what had arrived when it was trained."""
    store.upsert([labelled(1), labelled(2, ARRIVED_MS + 60_000)])
    assert numbers(unseen_photos(store, None, ARRIVED_MS)) == [2]
    assert numbers(unseen_photos(store, 999, ARRIVED_MS)) == [2]
