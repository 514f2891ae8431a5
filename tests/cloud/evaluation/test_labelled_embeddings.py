"""Rules of cloud/evaluation/labelled_embeddings.py: where the embedding of a labelled photo comes from."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest
from msgspec import structs

from cloud.dataset.store import Row, Store
from cloud.evaluation.labelled_embeddings import labelled_embeddings
from schemas.class_names import NEITHER
from schemas.codec import content_id
from tests.cloud.bundles import card
from tests.nodes import photo_id

SAID = {"human_by": "ann", "human_at_ms": 1}


def row(number: int, **fields: object) -> Row:
    made = {
        "photo_id": photo_id(number),
        "image": f"photo {number}".encode(),
        "width": 1,
        "height": 1,
        "received_at_ms": number,
        "human_label": "cat",
        **SAID,
    }
    return Row(**(made | fields))


def vector(value: float) -> np.ndarray:
    return np.full(4, value, np.float32)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(tmp_path / "dataset")


def test_samples_have_that_of_their_edge_if_it_ran_the_same_weights(store, tmp_path):
    """Not that of a version with another backbone; neither gold photos nor such of no class count."""
    samples = [
        row(1, embedding=vector(1).tobytes(), model="pets", model_version=1, device="pi-1", node="edge-1"),
        row(2, embedding=vector(2).tobytes(), model="pets", model_version=2, device="pi-2", node="edge-1"),
        row(3, human_label=NEITHER, embedding=vector(3).tobytes(), model="pets", model_version=2),
        row(4, split="gold", embedding=vector(4).tobytes(), model="pets", model_version=2),
        row(5, human_label=None, human_by=None, human_at_ms=None),
    ]
    store.upsert(samples)
    cards = [structs.replace(card(1), weights_digest="1" * 32), card(2)]
    found = labelled_embeddings(store, cards, tmp_path / "none")
    assert (found.vectors.tolist(), list(found.labels)) == ([[2] * 4], ["cat"])
    assert (list(found.devices), found.labelled) == (["edge-1/pi-2"], 2)
    assert labelled_embeddings(store, [], tmp_path / "none").vectors.shape[0] == 0


def test_an_embedding_of_another_length_takes_the_place_of_no_other(store, tmp_path):
    """An edge that sends wrong ones, of the newest label too, leaves the figures of all others."""
    facts = {"model": "pets", "model_version": 1}
    wrong = np.ones(3, np.float32).tobytes()
    store.upsert(
        [row(9, embedding=wrong, human_at_ms=9, **facts)]
        + [row(at, embedding=vector(at).tobytes(), **facts) for at in (1, 2, 3)]
    )
    found = labelled_embeddings(store, [card(1)], tmp_path / "none")
    assert (found.vectors.shape, found.labelled) == ((3, 4), 4)


def test_imported_photos_have_that_of_the_trainings_cache(store, tmp_path):
    """By their content; a cache that is damaged has none, and is not a failure."""
    store.upsert([row(1, origin="import"), row(2, origin="import")])
    path = tmp_path / f"none-1-{'0' * 32}.sqlite3"
    with closing(sqlite3.connect(path)) as cache, cache:
        cache.execute("CREATE TABLE embedding (photo BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID")
        key = bytes.fromhex(content_id(b"photo 2"))
        cache.execute("INSERT INTO embedding VALUES (?, ?)", (key, vector(7).tobytes()))
    found = labelled_embeddings(store, [card(1)], tmp_path)
    assert (found.vectors.tolist(), list(found.devices)) == ([[7] * 4], [""])
    path.write_bytes(b"no database" * 100)
    assert labelled_embeddings(store, [card(1)], tmp_path).vectors.shape[0] == 0
