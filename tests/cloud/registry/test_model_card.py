"""Rules of cloud/registry/model_card.py: encoding, and the commit of the code."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from cloud.registry import model_card
from schemas.errors import PermanentError
from tests.cloud.bundles import card


@pytest.mark.parametrize("packed", [False, True])
def test_the_commit_of_a_checkout_is_known(
    packed: bool,  # noqa: FBT001 - a parametrised value, given by name
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commit is the one that git reports, with loose and with packed references."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=n@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    if packed:
        subprocess.run([*git, "pack-refs", "--all"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    monkeypatch.setattr(model_card, "__file__", str(tmp_path / "cloud" / "registry" / "model_card.py"))
    assert model_card.code_commit() == head.stdout.strip()


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a checkout the commit is None."""
    monkeypatch.setattr(model_card, "__file__", str(tmp_path / "cloud" / "registry" / "model_card.py"))
    assert model_card.code_commit() is None


@pytest.mark.parametrize("content", [b"nothing", b"{}", b"\xff"])
def test_an_invalid_card_is_an_error_that_names_its_file(content: bytes) -> None:
    """Invalid content is a PermanentError."""
    with pytest.raises(PermanentError, match=r"^no valid model card in 3/model.json: "):
        model_card.decode_card(content, Path("3/model.json"))


def test_a_card_survives_encoding_without_its_rollout() -> None:
    """`rolled_back` is not stored: a bundle, which contains the card, does not change after training."""
    rolled_back = msgspec.structs.replace(card(3), rolled_back=True)
    content = model_card.encode_card(rolled_back)
    assert b"rolled_back" not in content
    assert model_card.decode_card(content, Path("model.json")) == card(3)


def test_a_card_with_unknown_fields_can_be_read() -> None:
    """Cards of earlier releases stored the field `returned`."""
    fields = msgspec.json.decode(model_card.encode_card(card(3))) | {"returned": False}
    assert model_card.decode_card(msgspec.json.encode(fields), Path("model.json")) == card(3)


def test_library_versions_are_those_installed() -> None:
    """The libraries that affect the figures are listed with their versions."""
    assert set(model_card.library_versions()) == {"keras", "numpy", "tensorflow"}
