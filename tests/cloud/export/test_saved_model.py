"""Rules of cloud/export/: the exported model answers like the trained one, and how it is packed."""

import hashlib
import tarfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax
from tensorflow_serving.apis import prediction_log_pb2

from cloud.export import saved_model
from cloud.export.litert import run_networks
from cloud.export.saved_model import (
    WARMUP_BATCHES,
    ExportError,
    export_saved_model,
    pack,
    verify,
    verify_network,
    warmup_photos,
)
from cloud.export.serving_module import Model
from cloud.export.v1_loader import GraphAnswers, SavedModel
from cloud.modeling.backbones import EFFICIENTNET_LITE0, XCEPTION, XCEPTION_SMALL, Backbone, preprocess
from cloud.modeling.linear_head import Head
from cloud.modeling.novelty import fit_novelty, novelty_scores
from schemas.litert import EXTRA_ASSETS, NETWORK_FILE
from tests.cloud.tiny import TINY
from tests.default_version import default_version
from tests.serving import saved_models

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")

CLASSES = ("cat", "dog", "füchsin")


@pytest.fixture(scope="module")
def model() -> Model:
    """A model in miniature with a random head; the empty call exports one of each backbone."""
    generator = np.random.default_rng(0)
    head = Head(generator.normal(size=(TINY.embedding_dim, 3)) / 10, generator.normal(size=3))
    novelty = fit_novelty(generator.uniform(size=(20, TINY.embedding_dim)))
    return Model(TINY, TINY.build(), head, 1.7, CLASSES, novelty)


@pytest.fixture(scope="module")
def directory(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model exported as version 3."""
    directory = tmp_path_factory.mktemp("models") / "3"
    with export_saved_model(model, directory) as partial:
        (partial / EXTRA_ASSETS / "added.txt").write_text("written in the block")
    return directory


def served(directory: Path, photos: list[bytes]) -> dict[str, Any]:
    """Return the outputs by the loader and session that TensorFlow Serving uses."""
    with SavedModel(directory) as saved:
        return saved.predict(photos)


def export(model: Model, directory: Path, **options: bool) -> None:
    with export_saved_model(model, directory, **options):
        pass


def signatures(directory: Path) -> set[str]:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(directory))
    return {name for name in meta.signature_def if not name.startswith("__")}


def test_served_outputs_equal_the_trained_model(model: Model, directory: Path, make_example: Any) -> None:
    """Probabilities, embeddings and novelty of encoded photos equal those of the model's parts."""
    photos = [make_example("dawn", seed).image for seed in range(3)]
    outputs = served(directory, photos)
    embedding = model.network(preprocess(TINY, tf.constant(photos)), training=False).numpy()
    np.testing.assert_allclose(outputs["embedding"], embedding, atol=1e-4)
    expected = softmax(model.head.logits(embedding) / 1.7, axis=1)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-4)
    assert outputs["probabilities"].dtype == np.float32
    np.testing.assert_allclose(outputs["novelty"], novelty_scores(model.novelty, embedding), atol=1e-4)


def test_signature_is_the_contract(directory: Path) -> None:
    """The default signature has the names, types and shapes that the edge expects."""
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
        "embedding": ("float32", [-1, TINY.embedding_dim]),
        "novelty": ("float32", [-1]),
    }


def random_model(backbone: Backbone, network: keras.Model) -> Model:
    generator = np.random.default_rng(0)
    head = Head(generator.normal(size=(backbone.embedding_dim, 3)), generator.normal(size=3))
    novelty = fit_novelty(generator.uniform(size=(20, backbone.embedding_dim)))
    return Model(backbone, network, head, 1.0, CLASSES, novelty)


BUILDERS = {
    XCEPTION_SMALL: XCEPTION_SMALL.build,
    # Random weights: the pretrained ones are a download.
    XCEPTION: lambda: keras.applications.Xception(
        weights=None, include_top=False, pooling="avg", input_shape=(299, 299, 3)
    ),
}


@pytest.mark.parametrize("backbone", [EFFICIENTNET_LITE0, *BUILDERS], ids=lambda backbone: backbone.name)
def test_call_without_photos_has_empty_outputs(
    backbone: Backbone,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call with no photos returns outputs with 0 rows, for every backbone and on every processor."""
    if backbone is EFFICIENTNET_LITE0:
        exported = default_version(tmp_path_factory) / "1"
    else:
        monkeypatch.setattr(saved_model, "WARMUP_BATCHES", (1, 2))  # what the export compares is another rule
        exported = tmp_path / "1"
        export(random_model(backbone, BUILDERS[backbone]()), exported, tflite=backbone is XCEPTION_SMALL)
    with SavedModel(exported) as saved:
        shapes = {name: values.shape for name, values in saved.predict([]).items()}
        one, three = saved.predict(warmup_photos(1)), saved.predict(warmup_photos(3))
    assert shapes == {"probabilities": (0, 3), "embedding": (0, backbone.embedding_dim), "novelty": (0,)}
    for name, values in one.items():
        assert (len(values), len(three[name])) == (1, 3)
        np.testing.assert_allclose(values, three[name][:1], atol=1e-4)


def test_the_graph_runs_each_photo_once(
    directory: Path, make_example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gates that ask for photos again, in any order and several times each, get what the graph answers."""
    photos, asked, run = [make_example("dawn", seed).image for seed in range(3)], [], SavedModel.predict
    expected = served(directory, photos)
    monkeypatch.setattr(SavedModel, "predict", lambda saved, some: (asked.extend(some), run(saved, some))[1])
    with GraphAnswers(directory) as answers:
        assert answers.predict([]) == {}
        for order in ([0, 1], [2, 1, 0], [1, 1, 2]):
            got = answers.predict([photos[at] for at in order])
            assert got.keys() == expected.keys()
            for name, values in got.items():
                np.testing.assert_allclose(values, expected[name][order], atol=1e-6)
    assert asked == photos


def test_model_that_fails_on_no_photos_is_refused(
    model: Model, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export fails if the outputs of a call without photos have another shape."""
    real = SavedModel.predict
    monkeypatch.setattr(SavedModel, "predict", lambda saved, photos: real(saved, photos or warmup_photos(1)))
    with pytest.raises(ExportError, match=r"of no photos: expected shape \(0, 3\), got \(1, 3\)"):
        verify(directory, model, warmup_photos(1))


def test_undecodable_photo_is_an_invalid_argument(directory: Path, make_example: Any) -> None:
    """The graph fails with INVALID_ARGUMENT on a photo that it cannot decode."""
    photo = make_example("dawn", 0).image
    for broken in (b"no photo", photo[: len(photo) // 2]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            served(directory, [photo, broken])


def test_class_names_and_added_files_are_in_the_model(model: Model, directory: Path) -> None:
    """Class names are an asset, one per line; added files are where TensorFlow Serving ignores them."""
    assert (directory / "assets" / "classes.txt").read_text("utf-8").splitlines() == list(CLASSES)
    assert (directory / EXTRA_ASSETS / "added.txt").read_text() == "written in the block"


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
    """The variables on disk are the network's weights, the head and the prototypes of novelty."""
    saved = [shape for _, shape in tf.train.list_variables(directory / "variables/variables") if shape]
    head = (model.head.kernel, model.head.bias, model.novelty.prototypes)
    assert sorted(saved) == sorted([*array.shape] for array in (*model.network.get_weights(), *head))


def test_model_without_novelty_can_be_run() -> None:
    """Models of earlier versions lack novelty, and can still be compared with a challenger."""
    with SavedModel(saved_models() / "straight") as saved:
        assert set(saved.predict(warmup_photos(1))) == {"probabilities", "embedding"}


def test_model_with_other_outputs_is_refused(model: Model, directory: Path) -> None:
    """If the served outputs differ from the trained model's, the export fails."""
    others = {
        "probabilities": replace(model, temperature=1.0),
        "novelty": replace(model, novelty=replace(model.novelty, scale=2 * model.novelty.scale)),
    }
    for name, other in others.items():
        with pytest.raises(ExportError, match=f"{name}: expected Keras' values within"):
            verify(directory, other, warmup_photos(2))


@pytest.mark.parametrize(("error", "accepted"), [(5e-7, True), (3e-6, False)])
def test_novelty_is_compared_as_the_distance_that_it_divides(
    model: Model, directory: Path, monkeypatch: pytest.MonkeyPatch, *, error: float, accepted: bool
) -> None:
    """Rounding of a distance does not count as a difference, even magnified by a small scale."""
    photos, scale, real = warmup_photos(2), 0.001, SavedModel.predict
    seen = model.embed(preprocess(TINY, tf.constant(photos))).numpy()
    prototypes = seen / np.linalg.norm(seen, axis=1, keepdims=True)  # the distance of these photos is 0

    def predict(saved: SavedModel, some: list[bytes]) -> dict[str, Any]:
        return real(saved, some) | {"novelty": np.full(len(some), error / scale)}

    monkeypatch.setattr(SavedModel, "predict", predict)
    close = replace(model, novelty=replace(model.novelty, scale=scale, prototypes=prototypes))
    with nullcontext() if accepted else pytest.raises(ExportError, match="novelty: expected Keras' values"):
        verify(directory, close, photos)


def test_litert_network_is_optional(model: Model, directory: Path, tmp_path: Path) -> None:
    """With the option the bundle has a network with the same outputs; without it the bundle is unchanged."""
    export(model, tmp_path / "3", tflite=True)
    assert signatures(tmp_path / "3") == {"serving_default", "decode"}
    assert signatures(directory) == {"serving_default"}
    assert not (directory / NETWORK_FILE).exists()
    photos = warmup_photos(3)
    images = preprocess(TINY, tf.constant(photos)).numpy()
    outputs = run_networks([(tmp_path / "3" / NETWORK_FILE).read_bytes()], images)
    for name, values in served(directory, photos).items():
        np.testing.assert_allclose(outputs[name], values, atol=1e-4)
    pack(tmp_path / "3", tmp_path / "3.tar")
    with tarfile.open(tmp_path / "3.tar") as archive:
        assert str(NETWORK_FILE) in archive.getnames()


def test_litert_network_with_other_outputs_is_refused(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the converted network cannot run, or its outputs differ, the export fails."""
    export(model, tmp_path / "1", tflite=True)
    network = (tmp_path / "1" / NETWORK_FILE).read_bytes()
    with pytest.raises(ExportError, match="probabilities: expected Keras' values within"):
        verify_network(network, replace(model, temperature=1.0), warmup_photos(1))
    monkeypatch.setattr(saved_model, "convert_network", lambda *_: b"no network")
    with pytest.raises(ExportError, match=r"network\.tflite: LiteRT cannot run the converted network"):
        export(model, tmp_path / "2", tflite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_model_that_the_v1_loader_cannot_load_is_refused(model: Model, tmp_path: Path) -> None:
    """A Keras model saved such that TensorFlow Serving cannot load it fails the check."""
    network = model.network

    def serve(image: Any) -> dict[str, Any]:
        embedding = network(preprocess(TINY, image), training=False)
        probabilities = tf.nn.softmax(embedding[:, :3])
        return {"embedding": embedding, "probabilities": probabilities, "novelty": embedding[:, 0]}

    signature = tf.function(serve, input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    tf.saved_model.save(network, str(tmp_path / "keras"), signatures={"serving_default": signature})
    with pytest.raises(ExportError, match="keras: the V1 loader cannot serve the exported model"):
        verify(tmp_path / "keras", model, warmup_photos(1))


def test_failed_export_leaves_no_files(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed export there is neither a version directory nor a temporary one."""
    monkeypatch.setattr(saved_model, "TOLERANCE", -1.0)
    with pytest.raises(ExportError):
        export(model, tmp_path / "3")
    assert list(tmp_path.iterdir()) == []


def test_existing_version_is_not_overwritten(model: Model, directory: Path) -> None:
    """An export to an existing version directory fails."""
    with pytest.raises(ExportError, match="the version directory exists"):
        export(model, directory)


def test_bundle_is_deterministic(directory: Path, tmp_path: Path) -> None:
    """Packing twice gives the same bytes, for any file times; digest and size are the bundle's."""
    first = pack(directory, tmp_path / "a.tar")
    (directory / "saved_model.pb").touch()
    assert pack(directory, tmp_path / "b.tar") == first
    content = (tmp_path / "a.tar").read_bytes()
    assert (first.sha256, first.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    lists = [f"{name}.tar.parts{further}" for name in "ab" for further in ("", ".parts")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.tar", "b.tar", *lists])


def test_unpacked_bundle_equals_the_model(directory: Path, tmp_path: Path) -> None:
    """Every file of the unpacked tar equals the packed one."""
    pack(directory, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        archive.extractall(tmp_path / "out", filter="data")

    def files(root: Path) -> dict[str, bytes]:
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    assert files(tmp_path / "out") == files(directory)
