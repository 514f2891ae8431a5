"""Bundles of a small model, with a LiteRT part for the light model server and a card for releases."""

import shutil
import tempfile
from pathlib import Path

from msgspec import structs

from bus.files.cache_folder import default_cache
from cloud.registry.model_card import encode_card
from cloud.registry.registry import CARD_PATH
from tests.cloud.bundles import card
from tests.serving import CLASSES, pack, saved_models


def bundle(version: int) -> Path:
    """Return the bundle of a version, made once per machine; all versions give the same answers."""
    models = saved_models()
    folder = default_cache() / "pods/models" / models.name
    path = folder / f"{version}.tar"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            model = Path(scratch, "model")
            shutil.copytree(models / "straight", model)
            made = structs.replace(card(version), classes=list(CLASSES))
            (model / CARD_PATH).parent.mkdir(exist_ok=True)
            (model / CARD_PATH).write_bytes(encode_card(made))
            pack(model, Path(scratch, "bundle.tar")).rename(path)
    return path
