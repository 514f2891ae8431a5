"""What is embedded ahead of a training and of a teacher; without Ray."""

from pathlib import Path
from typing import Any

import pytest

from cloud.labeling.auto_label import READ_BY_TEACHER
from cloud.progress import NoProgress
from cloud.ray_jobs import ahead
from cloud.ray_jobs.task import Work
from cloud.training.pipeline import TrainingOptions
from schemas.errors import PermanentError
from tests.cloud.tiny import NAME

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the cluster is asked for: the work, its address, the condition and the dataset's version."""
    found: list[tuple[Any, ...]] = []

    def embed(work: Work, address: str, where: str, *_: object, version: int | None = None) -> None:
        found.append((work, address, where, version))

    monkeypatch.setattr(ahead, "embed_on_ray", embed)
    return found


def test_a_training_embeds_what_it_reads(asked: list[tuple[Any, ...]]) -> None:
    """Labelled photos of its version, with dimmed copies; nothing for what is trained from scratch."""
    options = TrainingOptions(dataset="d", models="m", cache="c", dataset_version=3, ray="r:1")
    assert ahead.embed_for_training(options, NAME, NoProgress())
    assert not ahead.embed_for_training(options, "compact", NoProgress())
    [(work, address, where, version)] = asked
    assert (work, address, version) == (Work("d", NAME, mirrored=False, dim=True), "r:1", 3)
    assert "human_label" in where


def test_a_teacher_embeds_by_each_of_its_networks(asked: list[tuple[Any, ...]], tmp_path: Path) -> None:
    """What it learns from and what it labels, with mirror images."""
    ahead.embed_for_teacher("d", ("a", "b"), "r:1", tmp_path, NoProgress())
    works = [Work("d", name, mirrored=True, dim=False) for name in ("a", "b")]
    assert asked == [(work, "r:1", READ_BY_TEACHER, None) for work in works]


def test_a_team_embeds_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray cluster in addition to the workers of TF_CONFIG is refused with an error message."""
    ahead.check_alone("r:1")
    monkeypatch.setenv("TF_CONFIG", "{}")
    ahead.check_alone(None)
    with pytest.raises(PermanentError, match="share the embedding already"):
        ahead.check_alone("r:1")
