"""Rules of cloud/labeling/similarity.py: which photos look like one, as the dataset changes."""

import numpy as np
import pytest

from cloud.dataset.change_log import ChangeLog
from cloud.dataset.curation import Selection, forget_photos
from cloud.dataset.store import Row, Store
from cloud.labeling.similarity import SimilarPhotos
from schemas.errors import PermanentError
from tests.nodes import photo_id

DIMENSIONS = 160


def rows(first: int, vectors: np.ndarray) -> list[Row]:
    """Return samples with these embeddings, in order of arrival."""
    return [
        Row(
            photo_id=photo_id(first + at),
            image=b"x",
            width=1,
            height=1,
            received_at_ms=first + at,
            embedding=vector.astype("<f4").tobytes(),
        )
        for at, vector in enumerate(vectors)
    ]


def drawn(count: int, seed: int = 0, dimensions: int = DIMENSIONS) -> np.ndarray:
    """Draw embeddings as networks give them: positive, a few directions with most of the variance."""
    generator = np.random.default_rng(seed)
    scale = 1 / np.sqrt(np.arange(1, dimensions + 1))
    mixing = np.random.default_rng(99).normal(0, 1, (dimensions, dimensions)) * scale[:, None]
    return 3 + generator.normal(0, 1, (count, dimensions)) @ mixing


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(tmp_path / "dataset")


def test_the_most_alike_are_found_as_by_comparing_all(store):
    """In the order of the cosine of the centred embeddings, without the photo itself."""
    vectors = drawn(400)
    store.upsert(rows(0, vectors))
    found = SimilarPhotos(store).like(photo_id(7), 10)
    centred = vectors.astype(np.float32) - vectors.astype(np.float32).mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    likeness = unit @ unit[7]
    exact = [int(at) for at in np.argsort(-likeness) if at != 7][:10]
    assert [one.photo_id for one in found] == [photo_id(at) for at in exact]
    assert found[0].likeness == pytest.approx(likeness[exact[0]], abs=1e-4)


def test_new_photos_are_found_and_forgotten_ones_are_not(store, tmp_path):
    """From the next search on; nothing has to be built again."""
    vectors = drawn(50)
    store.upsert(rows(0, vectors))
    search = SimilarPhotos(store)
    assert photo_id(50) not in {one.photo_id for one in search.like(photo_id(3), 5)}
    store.upsert(rows(50, vectors[3:4] + 1e-3))
    assert search.like(photo_id(3), 1)[0].photo_id == photo_id(50)
    assert len(search) == 51
    forget_photos(store, ChangeLog.open(tmp_path / "dataset"), Selection(photos=[photo_id(50)]), "ann")
    assert search.like(photo_id(3), 1)[0].photo_id != photo_id(50)
    assert len(search) == 50


def test_a_dataset_that_grows_is_searched_as_well_as_one_that_was_large(store):
    """The components that were found from a handful of photos are found again."""
    vectors = drawn(300)
    store.upsert(rows(0, vectors[:3]))
    search = SimilarPhotos(store)
    search.like(photo_id(0), 1)
    store.upsert(rows(3, vectors[3:]))
    assert search.like(photo_id(7), 10) == SimilarPhotos(store).like(photo_id(7), 10)


def test_photos_of_another_backbone_are_not_compared(store):
    """Embeddings of another length are not comparable with these; nor are those with NaN."""
    broken = drawn(1)
    broken[0, 0] = np.nan
    store.upsert([Row(photo_id=photo_id(99), image=b"x", width=1, height=1, received_at_ms=1)])
    store.upsert([*rows(0, drawn(20)), *rows(20, drawn(20, dimensions=32)), *rows(40, broken)])
    search = SimilarPhotos(store)
    assert {one.photo_id for one in search.like(photo_id(0), 30)} == {photo_id(at) for at in range(1, 20)}
    assert {one.photo_id for one in search.like(photo_id(25), 30)} == {
        photo_id(at) for at in range(20, 40) if at != 25
    }
    assert len(search) == 40


def test_a_photo_without_an_embedding_is_an_error(store):
    """The error has the reason: it was imported, or it does not exist."""
    store.upsert(
        [Row(photo_id=photo_id(0), image=b"x", width=1, height=1, received_at_ms=1, origin="import")]
    )
    with pytest.raises(PermanentError, match="has no embedding"):
        SimilarPhotos(store).like(photo_id(0), 5)
    with pytest.raises(PermanentError, match="not in the dataset"):
        SimilarPhotos(store).like(photo_id(1), 5)
