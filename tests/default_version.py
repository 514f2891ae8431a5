"""A version with the default network and all variants, exported once per run: it takes seconds."""

from pathlib import Path

import numpy as np
import pytest

from cloud.export.saved_model import export_saved_model, pack, warmup_photos
from cloud.export.serving_module import Model
from cloud.export.variants import INT8_FILES, Quantization
from cloud.modeling.backbones import EFFICIENTNET_LITE0
from cloud.modeling.linear_head import Head
from cloud.modeling.novelty import fit_novelty
from schemas.litert import EXTRA_ASSETS
from tests.once_per_run import once_per_run

CLASSES = ("a", "b", "c")


def export(folder: Path, version: int, *, quantized: Path | None = None) -> None:
    """Export a version and pack it as a training does; its random head answers with all confidences.

    Args:
        folder: of the versions and their bundles.
        version: decides the head; nothing else differs.
        quantized: earlier version whose network in 8-bit integers is kept.
    """
    dim = EFFICIENTNET_LITE0.embedding_dim
    head = Head(np.random.default_rng(version).normal(size=(dim, len(CLASSES))) * 0.2, np.zeros(len(CLASSES)))
    novelty = fit_novelty(np.random.default_rng(0).uniform(size=(20, dim)))
    model = Model(EFFICIENTNET_LITE0, EFFICIENTNET_LITE0.build(), head, 1.0, CLASSES, novelty)
    network = None if quantized is None else (quantized / EXTRA_ASSETS / INT8_FILES[0]).read_bytes()
    quantization = Quantization(warmup_photos(8), network)
    with export_saved_model(model, folder / str(version), tflite=True, quantization=quantization) as exported:
        pack(exported, folder / f"{version}.tar")


def default_version(factory: pytest.TempPathFactory) -> Path:
    """Return a folder with version 1 and its bundle, which nobody may change."""
    return once_per_run(factory, "default-version", lambda folder: export(folder, 1))
