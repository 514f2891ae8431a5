"""Embeddings of photos without labels, by group of devices."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from cloud.dataset.store import Row, Store
from cloud.registry.registry import Registry
from cloud.training.candidates.learners import FrozenLearner
from cloud.training.distributed import alone
from cloud.training.groups.heads import align_learner
from cloud.training.photos import read_photos
from tests.cloud.bundles import card
from tests.conftest import jpeg

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


def taken(
    number: int, device: str, group: str | None, value: float, version: int = 1, **fields: object
) -> Row:
    """Return a sample of a device, whose embedding has this value twice."""
    return Row(
        photo_id=f"{number:032x}",
        image=jpeg(number % 200),
        width=160,
        height=120,
        received_at_ms=number,
        node="e",
        device=device,
        device_group=group,
        lane="hard",
        model_version=version,
        embedding=np.full(2, value, "<f4").tobytes(),
        **fields,
    )


def test_a_training_reads_what_devices_of_groups_saw(tmp_path: Path) -> None:
    """By the network that embedded them; not gold photos, none of devices without a group, no NaN."""
    registry = Registry(tmp_path / "models")
    registry.folder.mkdir()
    for version, digest in ((1, "a" * 32), (2, "b" * 32)):
        registry.version_dir(version).mkdir()
        (registry.version_dir(version) / "assets.extra").mkdir()
        registry.write_card(msgspec.structs.replace(card(version), weights_digest=digest))
    store = Store.open(tmp_path / "photos.lance")
    store.upsert(
        [
            taken(1, "a", None, 1.0),
            taken(2, "a", "meters", 2.0, human_label="cat", human_by="ann", human_at_ms=1),
            taken(3, "b", "meters", 3.0, version=2),
            taken(4, "b", "meters", 4.0, split="gold"),
            taken(5, "b", "meters", float("nan")),
            taken(6, "b", "meters", 6.0, version=9),
            taken(7, "c", "", 7.0),
        ]
    )
    photos = read_photos(store, registry, None, alone())
    assert [one.group for one in photos.labelled] == ["meters"]
    backbone = card(1).backbone
    assert photos.sightings is not None
    by_first, by_second = (photos.sightings.by(backbone, digest * 32) for digest in "ab")
    assert sorted(by_first["meters"][:, 0].tolist()) == [1.0, 2.0]
    assert by_second["meters"].tolist() == [[3.0, 3.0]]
    assert photos.sightings.by(backbone, "c" * 32) == {}


def test_a_device_gives_its_newest_photos(tmp_path: Path, monkeypatch) -> None:
    """So that a camera that was moved is measured as it is now."""
    monkeypatch.setattr("cloud.training.groups.sightings.MAX_PHOTOS", 2)
    registry = Registry(tmp_path / "models")
    (registry.version_dir(1) / "assets.extra").mkdir(parents=True)
    registry.write_card(card(1))
    store = Store.open(tmp_path / "photos.lance")
    store.upsert([taken(at, "a", "meters", float(at)) for at in range(1, 6)])
    found = read_photos(store, registry, None, alone()).sightings
    assert found.by(card(1).backbone, card(1).weights_digest)["meters"][:, 0].tolist() == [5.0, 4.0]


def test_without_groups_no_embedding_is_read(tmp_path: Path) -> None:
    """An installation without groups trains as before."""
    store = Store.open(tmp_path / "photos.lance")
    store.upsert([taken(1, "a", "", 1.0), taken(2, "b", None, 1.0)])
    assert read_photos(store, Registry(tmp_path / "models"), None, alone()).sightings is None


def test_each_group_is_standardised_by_its_own_photos_labelled_or_not() -> None:
    """Embeddings of another length, as a sample from outside may carry, are left out."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(60, 4)).astype(np.float32)
    features[30:] += 5.0
    learner = FrozenLearner(None, features, 2, features.copy())  # type: ignore[arg-type]  # the network is not used
    groups = ["near"] * 30 + ["far"] * 30
    further = np.full((400, 4), 9.0, np.float32)
    aligned, moments = align_learner(learner, groups, {"far": further, "near": np.ones((5, 3), np.float32)})
    assert (moments["near"].photos, moments["far"].photos) == (30, 430)
    assert moments["far"].mean.mean() > 8.0 > moments["near"].mean.mean()
    assert (aligned.features[:30] == moments["near"].standardise(features[:30])).all()
    assert (aligned.features[30:] == moments["far"].standardise(features[30:])).all()
    assert aligned.copies is not None
    assert (aligned.copies == aligned.features).all()
