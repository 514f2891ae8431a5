"""Adopting a model: from a foreign file to a version that is released like any."""

import io
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cloud.dataset.change_log import ChangeLog
from cloud.dataset.curation import rename_class
from cloud.dataset.example import TrainingError
from cloud.dataset.store import Row, Store
from cloud.dataset.training_set import examples
from cloud.export.v1_loader import SavedModel
from cloud.modeling.offset_head import answer_by_groups
from cloud.registry.champion import HeldOutAnswers, evaluate_challenger, measure_again
from cloud.registry.registry import Registry
from cloud.registry.renamed_classes import with_current_names
from cloud.training.adoption import ADOPTED, AdoptionOptions, run_adoption
from schemas.codec import content_id
from schemas.errors import PermanentError
from schemas.groups.heads import read_heads
from schemas.litert import read_manifest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")

CLASSES = ("blue", "red")
SIDE = 8


def photo(label: str, seed: int) -> bytes:
    """A picture that is mostly red or mostly blue, with noise that differs from photo to photo."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 120, (24, 32, 3))
    pixels[..., 0 if label == "red" else 2] += 100
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def labelled(image: bytes, label: str, **fields: object) -> Row:
    """A photo that a person labelled, by default an imported one."""
    facts: dict[str, object] = {
        "photo_id": content_id(image), "image": image, "width": 32, "height": 24, "received_at_ms": 1,
        "human_label": label, "human_by": "bob", "human_at_ms": 1, "origin": "import",
    }  # fmt: skip
    return Row(**(facts | fields))  # type: ignore[arg-type]  # tests pass fields by name


def add(store: Store, count: int, split: str, *, classes: tuple[str, ...] = CLASSES, first: int = 0) -> None:
    images = [(label, photo(label, first + seed)) for seed in range(count) for label in classes]
    store.upsert([labelled(image, label, split=split) for label, image in images])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten labelled and ten gold photos per class."""
    url = str(tmp_path_factory.mktemp("data") / "dataset.lance")
    store = Store.open(url)
    add(store, 10, "train")
    add(store, 10, "gold", first=100)
    return url


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Keras classifier that is right, and far too sure."""
    return save(tmp_path_factory.mktemp("model") / "colours.keras", sureness=100)


def save(path: Path, *, sureness: float) -> Path:
    inputs = keras.Input((SIDE, SIDE, 3))
    dense = keras.layers.Dense(2, activation="softmax")
    keras.Model(inputs, dense(keras.layers.GlobalAveragePooling2D()(inputs))).save(path)
    loaded = keras.saving.load_model(path)
    loaded.layers[-1].set_weights([sureness * np.array([[-1.0, 1], [0, 0], [1, -1]]), np.zeros(2)])
    loaded.save(path)
    return path


def options(model: Path, dataset: str | None, folder: Path, **others: Any) -> AdoptionOptions:
    return AdoptionOptions(
        model=str(model),
        dataset=dataset,
        models=str(folder / "models"),
        cache=str(folder / "cache"),
        **{"classes": CLASSES, "preprocessing": "unit", "tflite": False, **others},
    )


def test_an_adopted_model_is_a_version(model: Path, dataset: str, tmp_path: Path) -> None:
    """It has a card with metrics on gold, a temperature, a bundle, LiteRT variants and the dataset's tag."""
    trained = run_adoption(options(model, dataset, tmp_path, tflite=True)).trained
    assert trained is not None
    registry = Registry(tmp_path / "models")
    card, bundle = registry.card(), registry.bundle(1)
    assert (card.chosen, card.classes, card.verdict) == (ADOPTED, list(CLASSES), None)
    assert card.metrics is not None
    assert (card.metrics.photos, card.metrics.accuracy) == (20, 1.0)
    assert card.examples == {"blue": {"human": 10}, "red": {"human": 10}}
    assert card.backbone.startswith("colours-")
    assert card.temperature > 1, "it was too sure for the 20 labels that it is calibrated on"
    assert bundle.card == card
    manifest = read_manifest(trained.directory)
    assert manifest is not None
    assert {variant.name for variant in manifest.variants} >= {"float32"}
    assert Store.open(dataset).tags()["model-1"] == card.dataset_version
    with SavedModel(trained.directory) as saved:
        outputs = saved.predict([photo("blue", 500), photo("red", 501)])
    assert outputs["probabilities"].argmax(axis=1).tolist() == [0, 1]


def test_a_rename_makes_no_version_wrong(model: Path, tmp_path: Path) -> None:
    """A version is measured, and compared as the champion, by the names that its classes have now."""
    store = Store.open(tmp_path / "dataset.lance")
    add(store, 10, "train")
    add(store, 20, "gold", first=100)
    assert run_adoption(options(model, store.location, tmp_path)).trained is not None
    rename_class(store, ChangeLog.open(store.location), "red", "crimson", "ann")
    registry, gold = Registry(tmp_path / "models"), examples(store, split="gold")
    card = with_current_names(registry.card(1), store)
    assert measure_again(registry.version_dir(1), card, gold)[0].accuracy == 1.0
    worse = save(tmp_path / "worse.keras", sureness=0.0)
    trained = run_adoption(options(worse, store.location, tmp_path, classes=("blue", "crimson"))).trained
    assert trained is not None
    verdict = trained.card.verdict
    assert verdict is not None
    assert verdict.gold is not None
    assert verdict.decision == "keep"
    assert (verdict.gold.champion, verdict.gold.challenger) == pytest.approx((1.0, 0.5))


def test_held_out_photos_time_two_versions(model: Path, dataset: str, tmp_path: Path) -> None:
    """Without gold photos and audits, the latency of another backbone is measured anyway."""
    registry = Registry(tmp_path / "models")
    assert run_adoption(options(model, dataset, tmp_path)).trained is not None
    champion, photos = registry.champion(), examples(Store.open(dataset))
    assert champion is not None
    held_out = HeldOutAnswers(photos, np.eye(2)[[CLASSES.index(photo.label) for photo in photos]])
    verdict = evaluate_challenger(
        champion, champion.directory, [], held_out=held_out, backbone="another", classes=CLASSES, seed=0
    )
    assert verdict.latency_ratio is not None


def test_a_litert_file_is_a_version_too(model: Path, dataset: str, tmp_path: Path) -> None:
    """Of integers from input to output: the version has card, bundle and SavedModel, and answers as it."""
    network = keras.saving.load_model(model)
    served = tf.function(network, input_signature=[tf.TensorSpec([1, SIDE, SIDE, 3], tf.float32)])
    module = tf.Module()
    module.weights = [weight.value for weight in network.weights]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([served.get_concrete_function()], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [np.random.default_rng(seed).random((1, SIDE, SIDE, 3), np.float32)] for seed in range(8)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    (tmp_path / "colours.tflite").write_bytes(converter.convert())
    trained = run_adoption(
        options(tmp_path / "colours.tflite", dataset, tmp_path, preprocessing=None, tflite=True)
    ).trained
    assert trained is not None
    card = Registry(tmp_path / "models").bundle(1).card
    assert card.metrics is not None
    assert (card.metrics.accuracy, card.metrics.photos) == (1.0, 20)
    assert card.temperature > 1, "the softmax was taken off, so that it can be calibrated"
    manifest = read_manifest(trained.directory)
    assert manifest is not None
    assert manifest.variants[0].name == "float32"
    with SavedModel(trained.directory) as saved:
        outputs = saved.predict([photo("blue", 500), photo("red", 501)])
    assert outputs["probabilities"].argmax(axis=1).tolist() == [0, 1]


def test_the_gate_judges_an_adopted_model(model: Path, dataset: str, tmp_path: Path) -> None:
    """A worse model than the champion is not promoted; its card has the verdict, and the champion stays."""
    run_adoption(options(model, dataset, tmp_path))
    worse = run_adoption(options(model, dataset, tmp_path, classes=CLASSES[::-1])).trained
    assert worse is not None
    assert worse.card.verdict is not None
    assert worse.card.verdict.decision == "keep"
    champion = Registry(tmp_path / "models").champion()
    assert champion is not None
    assert champion.card.version == 1


def test_without_photos_it_is_adopted_only_when_asked(model: Path, tmp_path: Path) -> None:
    """A dataset without labels of its classes cannot calibrate it; without one it is adopted as it is."""
    url = str(tmp_path / "other.lance")
    add(Store.open(url), 3, "train", classes=("red",))
    with pytest.raises(TrainingError, match=r"no photo that a person labelled .*--uncalibrated"):
        run_adoption(options(model, url, tmp_path, classes=("cat", "dog")))
    with pytest.raises(PermanentError, match=r"none\.lance"):
        run_adoption(options(model, str(tmp_path / "none.lance"), tmp_path))
    assert not Registry(tmp_path / "models").versions()
    trained = run_adoption(options(model, None, tmp_path)).trained
    assert trained is not None
    assert (trained.card.temperature, trained.card.metrics, trained.card.dataset_version) == (1.0, None, None)


@pytest.mark.parametrize("classes", [("cat",), ("cat", "cat")])
def test_classes_are_distinct(classes: tuple[str, ...], model: Path, tmp_path: Path) -> None:
    """A classifier has at least two classes, each once."""
    with pytest.raises(
        TrainingError, match=r"at least two distinct names, got .*; name all classes of the model"
    ):
        run_adoption(options(model, None, tmp_path, classes=classes))


def test_groups_of_devices_get_heads_beside_an_adopted_model(model: Path, tmp_path: Path) -> None:
    """A group whose people call red what the others call blue gets its own head."""
    store = Store.open(tmp_path / "dataset.lance")
    other = {"red": "blue", "blue": "red"}
    images = {
        (group, label, seed): photo(label, 1000 * number + seed)
        for number, group in enumerate(("usual", "swapped"))
        for label in CLASSES
        for seed in range(12)
    }
    store.upsert(
        [
            labelled(
                image,
                other[label] if group == "swapped" else label,
                origin="sample",
                node="edge-1",
                device=group,
                device_group=group,
                lane="hard",
            )
            for (group, label, _), image in images.items()
        ]
    )
    trained = run_adoption(options(model, store.location, tmp_path)).trained
    assert trained is not None
    heads = read_heads(trained.directory)
    assert heads is not None
    with SavedModel(trained.directory) as saved:
        outputs = saved.predict([photo("blue", 5000), photo("red", 5001)])
    answers = answer_by_groups(
        heads.by_group, ["swapped", "swapped"], outputs["probabilities"].astype(float), outputs["embedding"]
    )
    assert outputs["probabilities"].argmax(axis=1).tolist() == [0, 1]
    assert answers.argmax(axis=1).tolist() == [1, 0]
