"""Bundles of a small model, with a LiteRT part for the light model server and a card for releases."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec import structs

from bus.cache_folder import default_cache
from cloud.registry.model_card import encode_card
from cloud.registry.registry import CARD_PATH
from schemas.litert import (
    FLOAT32,
    MANIFEST_FILE,
    NETWORK_FILE,
    Manifest,
    PixelFormat,
    Variant,
    encode_manifest,
)
from tests.cloud.bundles import card
from tests.serving import CLASSES, QUIET, pack, saved_models

_SIDE_PX = 16
# The mean colour decides, as in the SavedModel of `tests.serving`.
_CONVERT = f"""
import pathlib
import sys
import tensorflow as tf
from cloud.export.litert import convert_network

def answer(pixels):
    weights = tf.constant([[12.0, -12.0], [0.0, 0.0], [-12.0, 12.0]])
    mean = tf.reduce_mean(pixels, [1, 2])
    return {{"probabilities": tf.nn.softmax(mean @ weights), "embedding": mean}}

content = convert_network(tf.Module(), answer, ({_SIDE_PX}, {_SIDE_PX}, 3))
pathlib.Path(sys.argv[1]).write_bytes(content)
"""


def bundle(version: int) -> Path:
    """Return the bundle of a version, made once per machine; all versions give the same answers."""
    folder = default_cache() / "pods/models" / hashlib.sha256(_CONVERT.encode()).hexdigest()[:16]
    path = folder / f"{version}.tar"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            model = Path(scratch, "model")
            shutil.copytree(saved_models() / "straight", model)
            _add_network(folder, model)
            made = structs.replace(card(version), classes=list(CLASSES))
            (model / CARD_PATH).parent.mkdir(exist_ok=True)
            (model / CARD_PATH).write_bytes(encode_card(made))
            pack(model, Path(scratch, "bundle.tar")).rename(path)
    return path


def _add_network(folder: Path, model: Path) -> None:
    network = folder / "network.tflite"
    if not network.exists():
        subprocess.run(
            [sys.executable, "-c", _CONVERT, str(network)], check=True, env=os.environ | QUIET, timeout=600
        )
    (model / NETWORK_FILE).parent.mkdir(exist_ok=True)
    shutil.copy(network, model / NETWORK_FILE)
    form = PixelFormat(_SIDE_PX, _SIDE_PX, 0.0, 255.0)
    manifest = Manifest("serving_default", (Variant(FLOAT32, (NETWORK_FILE.name,)),), form)
    (model / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
