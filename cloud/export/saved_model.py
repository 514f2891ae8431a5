"""Write a model as the SavedModel that TensorFlow Serving loads, and pack it for the way to the edge."""

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from cloud.export.litert import ask, converted
from cloud.export.v1_loader import SIGNATURE, SavedModel
from cloud.modeling.arrays import softmax
from cloud.modeling.backbones import Backbone, preprocess
from cloud.modeling.linear_head import Head
from cloud.modeling.novelty import NoveltyModel, novelty_scores
from schemas.errors import PermanentError

CLASSES_FILE = "classes.txt"
EXTRA = "assets.extra"
WARMUP_FILE = "tf_serving_warmup_requests"
WARMUP_BATCHES = (1, 2, 4, 8)
NETWORK_FILE = "network.tflite"
DECODE = "decode"
"""Signature from encoded photos to what the network of `NETWORK_FILE` takes, one photo at a time."""
_ENCODED = (tf.TensorSpec([None], tf.string, name="image"),)
TOLERANCE = 1e-4
"""Most that served answers may differ from Keras' (embeddings, novelty: relative to their largest value)."""


class ExportError(PermanentError):
    """A model cannot be served as it was trained, or its place is taken."""


@dataclass(frozen=True, slots=True)
class Model:
    """All that answers need.

    Attributes:
        backbone: says how pixels are prepared.
        network: pixels to embedding.
        head: embedding to logits.
        temperature: divides the logits.
        classes: names in the order of the outputs.
        novelty: tells embeddings that are unlike all it was trained on.
    """

    backbone: Backbone
    network: keras.Model
    head: Head
    temperature: float
    classes: tuple[str, ...]
    novelty: NoveltyModel


@dataclass(frozen=True, slots=True)
class Bundle:
    """A packed model.

    Attributes:
        sha256: of the file, 64 hex digits.
        size_bytes: of the file.
    """

    sha256: str
    size_bytes: int


def signature_of(model: Model) -> dict[str, str]:
    """Describe the serving signature for the card."""
    return {
        "image": "string[None]",
        "probabilities": f"float32[None,{len(model.classes)}]",
        "embedding": f"float32[None,{model.backbone.embedding_dim}]",
        "novelty": "float32[None]",
    }


@contextmanager
def exported(model: Model, directory: Path, *, tflite: bool = False) -> Iterator[Path]:
    """Write a SavedModel with class names and warm-up records, after proving that it can be served.

    It is written beside `directory` under a name that no model server takes for a version, loaded as
    TensorFlow Serving loads it and compared with Keras on the warm-up photos. What else belongs to it is
    added in the block, at whose end it is renamed.

    Args:
        model: what to serve.
        directory: the version directory; must not exist.
        tflite: write the network for LiteRT too, which Gleaner's model server runs if told so.

    Yields:
        The directory until it is renamed.

    Raises:
        ExportError: the directory exists, the loader refuses the model, or its answers differ.
    """
    if directory.exists():
        raise ExportError(f"{directory}: expected a new version directory, got one that exists")
    partial = directory.with_name(f"tmp-{directory.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        served = _save(model, partial, tflite=tflite)
        photos = warmup_photos(max(WARMUP_BATCHES))
        extra = partial / EXTRA
        extra.mkdir()
        _write_warmup(extra / WARMUP_FILE, photos)
        verify(partial, model, photos)
        if tflite:
            network = converted(served, served.answer, model.network.input_shape[1:])
            verify_network(network, model, photos)
            (extra / NETWORK_FILE).write_bytes(network)
        yield partial
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Served(tf.Module):  # type: ignore[misc] # TensorFlow ships no types
    """The model as a graph from encoded photos to answers.

    The network's variables are listed and the network itself is not an attribute: the loader that
    TensorFlow Serving uses does not find variables that are reachable only through a Keras model, and
    those that are reachable both ways would be written twice.
    """

    def __init__(self, model: Model, classes_file: Path) -> None:
        super().__init__()
        self.listed = [weight.value for weight in model.network.weights]
        self.kernel = tf.Variable(model.head.kernel / model.temperature, dtype=tf.float32, trainable=False)
        self.bias = tf.Variable(model.head.bias / model.temperature, dtype=tf.float32, trainable=False)
        self.prototypes = tf.Variable(model.novelty.prototypes, dtype=tf.float32, trainable=False)
        self.classes = tf.saved_model.Asset(str(classes_file))

        def decode(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"pixels": preprocess(model.backbone, image)}

        def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
            embedding = model.network(images, training=False)
            probabilities = tf.nn.softmax(embedding @ self.kernel + self.bias)
            likeness = tf.linalg.l2_normalize(embedding, axis=1) @ tf.transpose(self.prototypes)
            distance = tf.maximum(1.0 - tf.reduce_max(likeness, axis=1), 0.0)
            return {
                "probabilities": probabilities,
                "embedding": embedding,
                "novelty": distance / model.novelty.scale,
            }

        self.decode, self.answer = decode, answer
        self.serve = tf.function(lambda image: answer(decode(image)["pixels"]), input_signature=_ENCODED)


def _save(model: Model, directory: Path, *, tflite: bool) -> _Served:
    with tempfile.TemporaryDirectory() as scratch:
        classes_file = Path(scratch, CLASSES_FILE)
        classes_file.write_text("".join(f"{name}\n" for name in model.classes), "utf-8")
        served = _Served(model, classes_file)
        signatures = {SIGNATURE: served.serve}
        if tflite:
            signatures[DECODE] = tf.function(served.decode, input_signature=_ENCODED)
        tf.saved_model.save(served, str(directory), signatures=signatures)
    return served


def warmup_photos(count: int) -> list[bytes]:
    """Draw small JPEGs, always the same: coloured gradients with noise, in the common aspect ratios."""
    generator = np.random.default_rng(0)
    photos = []
    for position in range(count):
        height, width = ((240, 320), (320, 240), (240, 240))[position % 3]
        rows = np.linspace(0, 1, height)[:, None, None] * generator.uniform(0, 150, 3)
        columns = np.linspace(0, 1, width)[None, :, None] * generator.uniform(0, 80, 3)
        noise = generator.uniform(0, 25, (height, width, 3))
        photos.append(tf.io.encode_jpeg((rows + columns + noise).astype(np.uint8)).numpy())
    return photos


def _write_warmup(path: Path, photos: Sequence[bytes]) -> None:
    """Write one Predict request per batch size; the server runs them before a version is available."""
    with tf.io.TFRecordWriter(str(path)) as records:
        for batch in WARMUP_BATCHES:
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = SIGNATURE
            request.inputs["image"].CopyFrom(tf.make_tensor_proto(photos[:batch], tf.string, [batch]))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            records.write(log.SerializeToString())


def verify(directory: Path, model: Model, photos: Sequence[bytes]) -> None:
    """Load a SavedModel through the V1 loader, as TensorFlow Serving does, and compare its answers.

    Args:
        directory: the SavedModel.
        model: what it should answer like.
        photos: encoded photos to ask about.

    Raises:
        ExportError: it cannot be loaded or run, or differs by more than `TOLERANCE`.
    """
    try:
        with SavedModel(directory) as saved:
            served = saved.ask(photos)
    except (tf.errors.OpError, RuntimeError, KeyError, OSError, ValueError) as error:
        raise ExportError(
            f"{directory.name}: expected a model that the V1 loader serves, got: {error}"
        ) from error
    _compare(served, model, _pixels(model, photos))


def verify_network(network: bytes, model: Model, photos: Sequence[bytes]) -> None:
    """Run what was converted for LiteRT, and compare its answers.

    Raises:
        ExportError: it cannot be run, or differs by more than `TOLERANCE`.
    """
    images = _pixels(model, photos)
    try:
        said = ask(network, images.numpy())
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"{NETWORK_FILE}: expected a network that LiteRT runs, got: {error}") from error
    _compare(said, model, images)


def _pixels(model: Model, photos: Sequence[bytes]) -> tf.Tensor:
    return preprocess(model.backbone, tf.constant(list(photos)))


def _compare(said: Mapping[str, NDArray[np.float32]], model: Model, images: tf.Tensor) -> None:
    embedding = model.network(images, training=False).numpy()
    expected = {
        "embedding": embedding,
        "probabilities": softmax(model.head.logits(embedding) / model.temperature),
        "novelty": novelty_scores(model.novelty, embedding),
    }
    for name, values in expected.items():
        scale = max(1.0, float(np.abs(values).max()))
        difference = float(np.abs(said[name] - values).max()) / scale
        if not difference <= TOLERANCE:  # also refuses NaN
            raise ExportError(f"{name}: expected Keras' answers within {TOLERANCE}, got {difference:.2g} off")


def pack(directory: Path, bundle: Path) -> Bundle:
    """Pack a SavedModel as an uncompressed tar; weights do not compress.

    The same files always give the same bytes: sorted, without times and owners. Names inside are
    relative to `directory`.

    Args:
        directory: the SavedModel.
        bundle: the file to write; it is replaced at once, when complete.
    """
    partial = bundle.with_name(f"tmp-{bundle.name}")
    with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(directory.rglob("*")):
            entry = tarfile.TarInfo(path.relative_to(directory).as_posix())
            if path.is_dir():
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                entry.size, entry.mode = path.stat().st_size, 0o644
                with path.open("rb") as content:
                    archive.addfile(entry, content)
    with partial.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    partial.replace(bundle)
    return Bundle(sha256=digest, size_bytes=bundle.stat().st_size)
