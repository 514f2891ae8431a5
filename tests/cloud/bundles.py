"""Cards and bundles without a model, which suffice for the registry and for releases."""

import io
import tarfile
from pathlib import Path

from msgspec import structs

from cloud.evaluation.promotion_gate import Verdict
from cloud.registry.model_card import Card, encode_card
from cloud.registry.registry import CARD_PATH, Registry

CLASSES = ["cat", "dog"]


def card(version: int, verdict: Verdict | None = None) -> Card:
    """Return a card for tests."""
    return Card(
        version=version,
        parent=None,
        dataset_version=None,
        backbone="none",
        weights_digest="0" * 32,
        classes=CLASSES,
        signature={},
        temperature=1.5,
        examples={},
        examples_used={},
        metrics=None,
        chosen="human",
        candidates=[],
        seed=0,
        commit=None,
        created_at="2026-01-01T00:00:00+00:00",
        training_s=0.0,
        libraries={},
        verdict=verdict,
    )


def bundle(folder: Path, version: int, verdict: Verdict | None = None, *, parent: int | None = None) -> Path:
    """Write the bundle of a version, which contains only its card, and return its path."""
    path = Registry(folder).bundle_path(version)
    made = card(version, verdict)
    content = encode_card(made if parent is None else structs.replace(made, parent=parent))
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo(CARD_PATH)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return path
