"""The LiteRT part of a version: a quantized network with its own head, and removing variants."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cloud.dataset.example import Example
from cloud.export.litert import VariantModel
from cloud.export.saved_model import export_saved_model, warmup_photos
from cloud.export.serving_module import Model
from cloud.export.v1_loader import SavedModel
from cloud.export.variants import INT8_FILES, Quantization, remove_variants
from cloud.modeling.linear_head import Head
from cloud.modeling.novelty import fit_novelty
from cloud.registry.variant_evaluation import evaluate_variants
from schemas.litert import EXTRA_ASSETS, MANIFEST_FILE, Manifest, read_manifest
from tests.cloud.tiny import TINY, build

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*"),
]

CLASSES = ("dawn", "dusk")
WIDE = replace(TINY, name="wide", embedding_dim=384, build=partial(build, (32, 96)))
"""Wide enough that its weights are most of its file."""


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory, make_example: Any) -> Path:
    """A version with both variants, calibrated on the photos that `make_example` draws."""
    keras.utils.set_random_seed(0)
    network, draw = WIDE.build(), np.random.default_rng(0)
    photos = [make_example(label, seed).image for label in CLASSES for seed in range(8)]
    head = Head(draw.normal(size=(WIDE.embedding_dim, 2)) * 20, np.zeros(2))
    novelty = fit_novelty(draw.uniform(size=(20, WIDE.embedding_dim)))
    path = tmp_path_factory.mktemp("exported") / "1"
    model = Model(WIDE, network, head, 1.0, CLASSES, novelty)
    with export_saved_model(model, path, tflite=True, quantization=Quantization(photos)):
        pass
    return path


def manifest_of(version: Path) -> Manifest:
    manifest = read_manifest(version)
    assert manifest is not None
    return manifest


def test_the_quantized_variant_has_the_outputs_of_the_graph(version: Path, make_example: Any) -> None:
    """The variants are float32 and int8, in this order; int8 is smaller, and close to the graph."""
    manifest = manifest_of(version)
    assert [variant.name for variant in manifest.variants] == ["float32", "int8"]
    assert manifest.pixels is not None
    photos = [make_example(label, 50).image for label in CLASSES]
    with SavedModel(version) as graph:
        expected = graph.predict(photos)
    outputs = VariantModel(version, manifest.variants[1], manifest.pixels).predict(photos)
    assert {name: values.shape for name, values in outputs.items()} == {
        name: values.shape for name, values in expected.items()
    }
    first, second = outputs["embedding"], expected["embedding"]
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    assert ((first * second).sum(axis=1) / lengths).min() > 0.95
    sizes = [
        sum((version / EXTRA_ASSETS / name).stat().st_size for name in v.files) for v in manifest.variants
    ]
    assert sizes[1] < sizes[0] / 2


def test_the_novelty_of_the_quantized_variant_is_fitted_to_its_embeddings(
    version: Path, make_example: Any
) -> None:
    """A photo that it was calibrated on has novelty 0, although its embedding is not the graph's."""
    manifest = manifest_of(version)
    assert manifest.pixels is not None
    model = VariantModel(version, manifest.variants[1], manifest.pixels)
    known, foreign = model.predict([make_example("dawn", 0).image, warmup_photos(1)[0]])["novelty"]
    assert known == pytest.approx(0, abs=1e-3)
    assert foreign > known


def test_a_quantized_network_of_an_earlier_version_is_kept(
    version: Path, make_example: Any, tmp_path: Path
) -> None:
    """It is written as it is, with a head that is fitted to it: a release then moves the head alone."""
    quantized = (version / EXTRA_ASSETS / INT8_FILES[0]).read_bytes()
    keras.utils.set_random_seed(0)
    network, draw = WIDE.build(), np.random.default_rng(1)
    photos = [make_example(label, seed).image for label in CLASSES for seed in range(90, 98)]
    head = Head(draw.normal(size=(WIDE.embedding_dim, 2)) * 20, np.zeros(2))
    novelty = fit_novelty(draw.uniform(size=(20, WIDE.embedding_dim)))
    model = Model(WIDE, network, head, 1.0, CLASSES, novelty)
    quantization = Quantization(photos, quantized)
    with export_saved_model(model, tmp_path / "2", tflite=True, quantization=quantization):
        pass
    assert (tmp_path / "2" / EXTRA_ASSETS / INT8_FILES[0]).read_bytes() == quantized
    other = (version / EXTRA_ASSETS / INT8_FILES[1]).read_bytes()
    assert (tmp_path / "2" / EXTRA_ASSETS / INT8_FILES[1]).read_bytes() != other


def gold_of(version: Path, make_example: Any, count: int) -> list[Example]:
    """Photos whose labels are the answers of the graph."""
    photos = [make_example(CLASSES[seed % 2], 100 + seed) for seed in range(count)]
    with SavedModel(version) as graph:
        answers = graph.predict([photo.image for photo in photos])["probabilities"].argmax(axis=1)
    return [
        Example(photo.photo_id, photo.image, CLASSES[answer], "human")
        for photo, answer in zip(photos, answers, strict=True)
    ]


def test_a_variant_that_cannot_be_run_is_refused_and_removed(
    version: Path, make_example: Any, tmp_path: Path
) -> None:
    """A damaged variant does not fail the training: it is refused, and not in the bundle afterwards."""
    gold = gold_of(version, make_example, 12)
    path = tmp_path / "1"
    shutil.copytree(version, path)
    (path / EXTRA_ASSETS / "network-int8.tflite").write_bytes(b"damaged")
    exact, quantized = evaluate_variants(path, gold, gold[:3], classes=CLASSES)
    assert (exact.name, exact.served, exact.reasons) == ("float32", True, [])
    assert exact.metrics is not None
    assert exact.metrics.accuracy == 1.0
    assert exact.audit is not None
    assert exact.audit.photos == 3
    assert (quantized.name, quantized.served) == ("int8", False)
    assert quantized.reasons[0].startswith("it cannot be run: ")
    remove_variants(path, ["int8"])
    assert [variant.name for variant in manifest_of(path).variants] == ["float32"]
    left = {file.name for file in (path / EXTRA_ASSETS).iterdir() if file.suffix == ".tflite"}
    assert left == {"network.tflite"}


def test_a_version_can_lose_all_its_variants(version: Path, tmp_path: Path) -> None:
    """If every variant is refused, the version has no LiteRT part and is served by its graph."""
    path = tmp_path / "1"
    shutil.copytree(version, path)
    remove_variants(path, ["float32", "int8"])
    assert not (path / MANIFEST_FILE).exists()
    assert read_manifest(path) is None
    assert not list((path / EXTRA_ASSETS).glob("*.tflite"))
