"""Pieces of a dataset, and what a task makes of one; without Ray."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bus.broker.process import free_port
from cloud.dataset.change_log import ChangeLog
from cloud.dataset.curation import forget_ids
from cloud.dataset.photo_caches import merge_caches
from cloud.dataset.store import HAS_IMAGE, Label, Row, Store
from cloud.labeling.embedder import Embedder
from cloud.progress import NoProgress
from cloud.ray_jobs.cluster import embed_on_ray
from cloud.ray_jobs.pieces import plan, read
from cloud.ray_jobs.task import Known, Work, cache_files, embed_piece, known_photos
from cloud.training.embeddings import embeddings
from schemas.errors import PermanentError, TransientError
from tests.cloud.tiny import NAME

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")

NOTHING = Known(frozenset(), frozenset())


class Counting:
    """Progress that counts the computed photos."""

    def __init__(self) -> None:
        self.done = 0

    def start(self, step: str, total: int) -> None:
        """Ignore the step."""

    def advance(self, count: int = 1) -> None:
        """Count."""
        self.done += count


@pytest.fixture
def photos(make_example: Any) -> list[Any]:
    """Photos of two classes."""
    return [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(6)]


@pytest.fixture
def store(photos: list[Any], tmp_path: Path) -> Store:
    """A dataset of several fragments; a person labelled the first half; the last photo is broken."""
    store = Store.open(tmp_path / "dataset")
    broken = Row(photo_id="f" * 32, image=b"\xff\xd8 no picture", width=8, height=8, received_at_ms=1)
    rows = [
        Row(photo_id=one.photo_id, image=one.image, width=80, height=60, received_at_ms=1) for one in photos
    ]
    for part in (rows[:5], rows[5:6], [*rows[6:], broken]):
        store.upsert(part)
    store.label([Label(photo_id=one.photo_id, label=one.label, by="ann", at_ms=1) for one in photos[:6]])
    return store


def test_pieces_have_each_photo_once(store: Store) -> None:
    """Pieces are of bounded size and in the order of the table; together they have each photo once."""
    pieces = list(plan(store, HAS_IMAGE, size=4))
    assert [len(piece.photo_ids) for piece in pieces] == [4, 4, 4, 1]
    assert sorted(one for piece in pieces for one in piece.photo_ids) == sorted(
        str(row["photo_id"]) for row in store.scan(["photo_id"])
    )


def test_a_piece_is_read_wherever_its_photos_are_now(store: Store, photos: list[Any], tmp_path: Path) -> None:
    """Photos are found after a compaction and after a change of their rows; a forgotten one is left out."""
    (piece,) = plan(store, HAS_IMAGE)
    store.label([Label(photo_id=photos[7].photo_id, label="dusk", by="bob", at_ms=2)])
    store.table.compact(remove_deleted=True)
    forget_ids(store, ChangeLog.open(tmp_path / "dataset"), [photos[0].photo_id], "ann", detail="asked for")
    found = {key for key, row in read(store, piece, ["image"]).items() if row["image"]}
    assert found == {*piece.photo_ids} - {photos[0].photo_id}


def test_a_task_writes_what_a_training_would(store: Store, photos: list[Any], tmp_path: Path) -> None:
    """After a task a training finds everything, and a second one has none to do.

    Dimmed copies are made of photos that a person labelled. An unusable photo is not tried again.
    """
    work = Work(store.location, NAME, mirrored=True, dim=True)
    (piece,) = plan(store, HAS_IMAGE)
    rows = embed_piece(work, piece, NOTHING)
    assert {(file.path, file.table): len(file.rows) for file in rows} == {
        (path, table): 13 if table == "photo" else 6 if path.endswith("-dim.sqlite3") else 12
        for path, table in cache_files(work).items()
    }
    merge_caches(tmp_path / "cache", rows)
    merge_caches(tmp_path / "cache", rows)
    embedder, counting = Embedder.open(NAME, tmp_path / "cache"), Counting()
    usable = embedder.decodable(photos, counting)
    cached = embedder.embed(usable, counting)
    embeddings(photos[:6], embedder.backbone, embedder.network, embedder.cache_dir, counting, dim=True)
    assert counting.done == 0
    own = Embedder.open(NAME, tmp_path / "own").embed(usable, NoProgress())
    np.testing.assert_allclose(cached, own, atol=1e-6)
    assert embed_piece(work, piece, known_photos(work, tmp_path / "cache")) == []


def test_ray_that_cannot_be_used(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray, the error names its extra; with nobody at the address, it comes at once."""
    work = Work(store.location, NAME, mirrored=False, dim=False)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        with pytest.raises(PermanentError, match=r"not installed.*\[ray\]"):
            embed_on_ray(work, "auto", HAS_IMAGE, tmp_path, NoProgress())
    pytest.importorskip("ray", reason="Ray is not installed; 'make test-ray' installs it")
    with pytest.raises(TransientError, match="cannot connect to the Ray cluster"):
        embed_on_ray(work, f"127.0.0.1:{free_port()}", HAS_IMAGE, tmp_path, NoProgress())
