"""A training gives heads to groups of devices, and the gates judge them as edges will serve them."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloud.dataset.example import Example
from cloud.registry.champion import evaluate_challenger, measure_again
from cloud.registry.registry import Champion, Registry, read_bundle
from cloud.rollout.releases import release_of
from cloud.training.packaging import Trained
from cloud.training.train import train
from schemas.groups.heads import HEADS_FILE, read_heads
from tests.cloud import tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")

OTHER = {"dawn": "dusk", "dusk": "dawn"}


@pytest.fixture(scope="module")
def taken(make_example) -> Callable[[str, range], list[Example]]:
    """Return a function that takes photos by devices of a group; those of `mirrored` have the other label."""

    def take(group: str, seeds: range) -> list[Example]:
        photos = [make_example(label, seed) for label in OTHER for seed in seeds]
        label = OTHER.get if group == "mirrored" else str
        return [replace(one, group=group, label=label(one.label)) for one in photos]

    return take


@pytest.fixture(scope="module")
def gold(taken) -> list[Example]:
    """The gold set, with photos of each group and of a device of none."""
    return [
        *taken("plain", range(200, 212)),
        *taken("mirrored", range(220, 232)),
        *taken("", range(240, 242)),
    ]


@pytest.fixture(scope="module")
def trained(taken, gold, tmp_path_factory) -> Trained:
    """Version 1 of two groups with opposite labels."""
    folder = tmp_path_factory.mktemp("models")
    labelled = [*taken("plain", range(24)), *taken("mirrored", range(30, 54)), *taken("new", range(60, 62))]
    return train(
        labelled, gold, backbone=tiny.NAME, cache_dir=folder / "cache", registry=Registry(folder), version=1
    )


def test_the_card_says_what_each_group_got(trained):
    """Both are answered by their heads; the metrics are those that edges serve."""
    found = {one.name: one for one in trained.card.groups}
    assert {name: one.served for name, one in found.items()} == {
        "mirrored": True,
        "plain": True,
        "new": False,
    }
    assert "too few" in found["new"].reason
    assert found["mirrored"].gold_photos == 24
    assert found["mirrored"].group_gold_accuracy > 0.9
    assert found["mirrored"].gold_accuracy < 0.7
    assert trained.card.metrics.accuracy > 0.85
    assert max(one.gold_accuracy for one in trained.card.candidates) < 0.7
    report = (trained.directory / "report.html").read_text("utf-8")
    assert "Groups of devices" in report
    assert "its own head" in report


def test_bundle_and_release_name_the_groups(trained):
    """The heads are in a file of the bundle."""
    assert read_heads(trained.directory).groups.keys() == {"mirrored", "plain"}
    release = release_of(read_bundle(trained.bundle_path), "edge-1", "pets")
    assert release.groups == ["mirrored", "plain"]


def test_the_gate_compares_versions_with_their_heads(trained, gold, tmp_path):
    """The same network without the heads is worse, on the whole and for a group."""
    shutil.copytree(trained.directory, tmp_path / "2")
    (tmp_path / "2" / HEADS_FILE).unlink()
    card = trained.card
    champion = Champion(trained.directory, card, {})
    options = {"backbone": card.backbone, "classes": card.classes, "seed": 0}
    worse = evaluate_challenger(champion, tmp_path / "2", gold, **options)
    assert worse.decision == "keep"
    assert any(reason.startswith("group ") for reason in worse.reasons)
    assert worse.groups.keys() == {"mirrored", "plain"}
    back = evaluate_challenger(Champion(tmp_path / "2", card, {}), trained.directory, gold, **options)
    assert back.gold.gain > 0.3
    assert back.decision != "keep"


def test_a_version_is_measured_again_with_its_heads(trained, gold):
    """`gleaner cloud evaluate` gives the figures of the card."""
    metrics, calibration = measure_again(trained.directory, trained.card, gold)
    assert metrics.accuracy == trained.card.metrics.accuracy
    assert calibration.gold_after == pytest.approx(trained.card.calibration.gold_after, abs=1e-3)


def test_photos_of_no_group_make_no_file(trained, taken):
    """The bundle of an installation without groups is what it was."""
    folder = Path(trained.directory).parent
    plain = [replace(one, group="") for one in taken("", range(6))]
    other = train(
        plain, [], backbone=tiny.NAME, cache_dir=folder / "cache", registry=Registry(folder), version=2
    )
    assert other.card.groups == []
    assert not (other.directory / HEADS_FILE).exists()
