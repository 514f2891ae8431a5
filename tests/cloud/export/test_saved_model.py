"""The SavedModel: what TensorFlow Serving's loader makes of it, and how it is packed."""

import hashlib
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from cloud.export import saved_model as exporting
from cloud.export.litert import ask
from cloud.export.saved_model import (
    EXTRA,
    NETWORK_FILE,
    WARMUP_BATCHES,
    ExportError,
    Model,
    exported,
    pack,
    verify,
    verify_network,
    warmup_photos,
)
from cloud.export.v1_loader import SavedModel
from cloud.modeling.arrays import softmax
from cloud.modeling.backbones import XCEPTION_SMALL, preprocess
from cloud.modeling.linear_head import Head
from cloud.modeling.novelty import fit_novelty, novelty_scores
from tests.serving import saved_models

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")

CLASSES = ("cat", "dog", "füchsin")


@pytest.fixture(scope="module")
def model() -> Model:
    """A small network with a random head."""
    keras.utils.set_random_seed(0)
    network = XCEPTION_SMALL.build()
    generator = np.random.default_rng(0)
    head = Head(generator.normal(size=(XCEPTION_SMALL.embedding_dim, 3)) * 5, generator.normal(size=3))
    seen = fit_novelty(generator.uniform(size=(20, XCEPTION_SMALL.embedding_dim)), seed=0)
    return Model(XCEPTION_SMALL, network, head, 1.7, CLASSES, seen)


@pytest.fixture(scope="module")
def directory(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That model, exported as version 3."""
    directory = tmp_path_factory.mktemp("models") / "3"
    with exported(model, directory) as partial:
        (partial / EXTRA / "added.txt").write_text("of the block")
    return directory


def served(directory: Path, photos: list[bytes]) -> dict[str, Any]:
    """Answers by the loader and session that TensorFlow Serving uses."""
    with SavedModel(directory) as saved:
        return saved.ask(photos)


def export(model: Model, directory: Path, **options: bool) -> None:
    with exported(model, directory, **options):
        pass


def signatures(directory: Path) -> set[str]:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(directory))
    return {name for name in meta.signature_def if not name.startswith("__")}


def test_served_answers_are_those_of_the_trained_model(
    model: Model, directory: Path, make_example: Any
) -> None:
    """Encoded photos in, calibrated probabilities, embeddings and novelty out, as the parts give them."""
    photos = [make_example("dawn", seed).image for seed in range(3)]
    answers = served(directory, photos)
    embedding = model.network(preprocess(XCEPTION_SMALL, tf.constant(photos)), training=False).numpy()
    np.testing.assert_allclose(answers["embedding"], embedding, atol=1e-4)
    expected = softmax(model.head.logits(embedding) / 1.7)
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-4)
    assert answers["probabilities"].dtype == np.float32
    np.testing.assert_allclose(answers["novelty"], novelty_scores(model.novelty, embedding), atol=1e-4)


def test_the_signature_is_the_contract(directory: Path) -> None:
    """The signature has the names, types and shapes that the edge expects, and the default name."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(directory))
    signature = meta.signature_def["serving_default"]
    sides = [*signature.inputs.items(), *signature.outputs.items()]
    shapes = {
        name: (tf.as_dtype(info.dtype).name, [dim.size for dim in info.tensor_shape.dim])
        for name, info in sides
    }
    assert shapes == {
        "image": ("string", [-1]),
        "probabilities": ("float32", [-1, 3]),
        "embedding": ("float32", [-1, XCEPTION_SMALL.embedding_dim]),
        "novelty": ("float32", [-1]),
    }


def test_a_broken_photo_is_an_invalid_argument(directory: Path, make_example: Any) -> None:
    """The served graph answers a photo that it cannot decode with INVALID_ARGUMENT."""
    photo = make_example("dawn", 0).image
    for broken in (b"no photo", photo[: len(photo) // 2]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            served(directory, [photo, broken])


def test_class_names_and_what_is_added_travel_with_the_model(model: Model, directory: Path) -> None:
    """Names are an asset, one per line; what else belongs to it is where TensorFlow Serving ignores it."""
    assert (directory / "assets" / "classes.txt").read_text("utf-8").splitlines() == list(CLASSES)
    assert (directory / EXTRA / "added.txt").read_text() == "of the block"


def test_warmup_records_can_be_served(directory: Path) -> None:
    """Each warm-up record is a Predict request of one batch size that the model answers."""
    path = directory / "assets.extra" / "tf_serving_warmup_requests"
    sizes = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        assert request.model_spec.signature_name == "serving_default"
        photos = list(tf.make_ndarray(request.inputs["image"]))
        assert len(served(directory, photos)["probabilities"]) == len(photos)
        sizes.append(len(photos))
    assert tuple(sizes) == WARMUP_BATCHES


def test_each_variable_is_written_once(model: Model, directory: Path) -> None:
    """The files are about as large as the weights."""
    weights_bytes = sum(array.nbytes for array in model.network.get_weights())
    variables_bytes = sum(path.stat().st_size for path in (directory / "variables").iterdir())
    assert variables_bytes < 1.2 * weights_bytes


def test_a_model_without_novelty_can_still_be_asked() -> None:
    """Models of earlier versions answer what they have: as a champion, such a one meets its successor."""
    with SavedModel(saved_models() / "straight") as saved:
        assert set(saved.ask(warmup_photos(1))) == {"probabilities", "embedding"}


def test_a_model_that_answers_otherwise_is_refused(model: Model, directory: Path) -> None:
    """If the served answers are not those of the trained model, the export fails."""
    others = {
        "probabilities": replace(model, temperature=1.0),
        "novelty": replace(model, novelty=replace(model.novelty, scale=2 * model.novelty.scale)),
    }
    for name, other in others.items():
        with pytest.raises(ExportError, match=f"{name}: expected Keras' answers within"):
            verify(directory, other, warmup_photos(2))


def test_the_network_for_litert_comes_only_if_wanted(model: Model, directory: Path, tmp_path: Path) -> None:
    """With the option a network of the same answers travels in the bundle; without, nothing changes."""
    export(model, tmp_path / "3", tflite=True)
    assert signatures(tmp_path / "3") == {"serving_default", "decode"}
    assert signatures(directory) == {"serving_default"}
    assert not (directory / EXTRA / NETWORK_FILE).exists()
    photos = warmup_photos(3)
    images = preprocess(XCEPTION_SMALL, tf.constant(photos)).numpy()
    said = ask((tmp_path / "3" / EXTRA / NETWORK_FILE).read_bytes(), images)
    for name, values in served(directory, photos).items():
        np.testing.assert_allclose(said[name], values, atol=1e-4)
    pack(tmp_path / "3", tmp_path / "3.tar")
    with tarfile.open(tmp_path / "3.tar") as archive:
        assert f"{EXTRA}/{NETWORK_FILE}" in archive.getnames()


def test_a_network_for_litert_that_answers_otherwise_is_refused(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If what was converted is no network, or does not answer as it was trained, the export fails."""
    export(model, tmp_path / "1", tflite=True)
    network = (tmp_path / "1" / EXTRA / NETWORK_FILE).read_bytes()
    with pytest.raises(ExportError, match="probabilities: expected Keras' answers within"):
        verify_network(network, replace(model, temperature=1.0), warmup_photos(1))
    monkeypatch.setattr(exporting, "converted", lambda *_: b"no network")
    with pytest.raises(ExportError, match=r"network\.tflite: expected a network that LiteRT runs"):
        export(model, tmp_path / "2", tflite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_what_the_v1_loader_cannot_load_is_refused(model: Model, tmp_path: Path) -> None:
    """A Keras model saved in the way that TensorFlow Serving cannot read does not pass."""
    network = model.network

    def serve(image: Any) -> dict[str, Any]:
        embedding = network(preprocess(XCEPTION_SMALL, image), training=False)
        probabilities = tf.nn.softmax(embedding[:, :3])
        return {"embedding": embedding, "probabilities": probabilities, "novelty": embedding[:, 0]}

    signature = tf.function(serve, input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    tf.saved_model.save(network, str(tmp_path / "keras"), signatures={"serving_default": signature})
    with pytest.raises(ExportError, match="keras: expected a model that the V1 loader serves"):
        verify(tmp_path / "keras", model, warmup_photos(1))


def test_a_failed_export_leaves_nothing(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No version directory appears, and no half of one."""
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(ExportError):
        export(model, tmp_path / "3")
    assert list(tmp_path.iterdir()) == []


def test_a_version_is_written_once(model: Model, directory: Path) -> None:
    """An existing version is never overwritten."""
    with pytest.raises(ExportError, match="one that exists"):
        export(model, directory)


def test_a_bundle_depends_on_the_files_alone(directory: Path, tmp_path: Path) -> None:
    """Packing twice gives the same bytes, whatever the times; the digest and size are the file's."""
    first = pack(directory, tmp_path / "a.tar")
    (directory / "saved_model.pb").touch()
    assert pack(directory, tmp_path / "b.tar") == first
    content = (tmp_path / "a.tar").read_bytes()
    assert (first.sha256, first.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "b.tar"]


def test_an_unpacked_bundle_is_the_model(directory: Path, tmp_path: Path) -> None:
    """What comes out of the tar is file for file what went in."""
    pack(directory, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        archive.extractall(tmp_path / "out", filter="data")

    def files(root: Path) -> dict[str, bytes]:
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    assert files(tmp_path / "out") == files(directory)
