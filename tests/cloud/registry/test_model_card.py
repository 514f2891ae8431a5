"""The card on disk and where its code stands."""

import subprocess
from pathlib import Path

import pytest

from cloud.registry import model_card, registry
from schemas.errors import PermanentError


@pytest.mark.parametrize("packed", [False, True])
def test_the_commit_of_a_checkout_is_known(
    packed: bool,  # noqa: FBT001 - a parametrised value, given by name
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a git checkout the commit is the one that git names, with loose and with packed references."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=n@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    if packed:
        subprocess.run([*git, "pack-refs", "--all"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    monkeypatch.setattr(model_card, "__file__", str(tmp_path / "cloud" / "registry" / "model_card.py"))
    assert model_card.code_commit() == head.stdout.strip()


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a checkout the commit is unknown, which is no error."""
    monkeypatch.setattr(model_card, "__file__", str(tmp_path / "cloud" / "registry" / "model_card.py"))
    assert model_card.code_commit() is None


@pytest.mark.parametrize("content", [b"nothing", b"{}", b"\xff"])
def test_a_broken_card_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    """Its file is named to whoever reads the versions of a folder."""
    path = registry.card_path(tmp_path / "3")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(PermanentError, match="expected one that training wrote, got "):
        registry.cards_in(tmp_path)


@pytest.mark.parametrize("content", [b"nothing", b"{}", b"\xff"])
def test_a_rollout_that_is_none_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    """Whether a version went back cannot be told then, and is not guessed."""
    (tmp_path / "3").mkdir()
    (tmp_path / "rollout-3.json").write_bytes(content)
    with pytest.raises(PermanentError, match=r"rollout-3.json: expected a rollout's state"):
        registry.cards_in(tmp_path)


def test_library_versions_are_those_installed() -> None:
    """What decides the figures is listed with its version."""
    assert set(model_card.library_versions()) == {"keras", "numpy", "tensorflow"}
