"""Export a model as a SavedModel for TensorFlow Serving, and pack it as a bundle for the edge."""

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
import tensorflow as tf
from numpy.typing import NDArray
from scipy.special import softmax
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from bus.files.atomic_file import sync_folder
from cloud.export.canonical_graph import make_canonical
from cloud.export.litert import NotConvertibleError, convert_network, run_networks
from cloud.export.part_lists import write_part_lists
from cloud.export.serving_module import ENCODED, Model, ServingModule
from cloud.export.v1_loader import SERVING_SIGNATURE, SavedModel
from cloud.export.variants import Quantization, quantized_variant, write_manifest
from cloud.modeling.backbones import preprocess
from cloud.modeling.novelty import novelty_scores
from schemas.errors import PermanentError
from schemas.litert import DECODE_SIGNATURE, EXTRA_ASSETS, FLOAT32, NETWORK_FILE, Variant

CLASSES_FILE = "classes.txt"
WARMUP_FILE = "tf_serving_warmup_requests"
WARMUP_BATCHES = (1, 2, 4, 8)
TOLERANCE = 1e-4
"""Largest difference of served outputs from Keras' (embedding, novelty: relative to the largest value)."""
_DISTANCE_ERROR = 1e-6
"""Largest error of a cosine distance that rounding of float32 explains."""

log = structlog.get_logger()


class ExportError(PermanentError):
    """The exported model does not load, answers unlike the trained one, or its directory exists."""


@dataclass(frozen=True, slots=True)
class PackedBundle:
    """Digest and size of a packed model.

    Attributes:
        sha256: of the file, 64 hex digits.
        size_bytes: of the file.
    """

    sha256: str
    size_bytes: int


def signature_of(model: Model) -> dict[str, str]:
    """Return types and shapes of the serving signature by name, for the model card."""
    return {
        "image": "string[None]",
        "probabilities": f"float32[None,{len(model.classes)}]",
        "embedding": f"float32[None,{model.backbone.embedding_dim}]",
        "novelty": "float32[None]",
    }


@contextmanager
def export_saved_model(
    model: Model, directory: Path, *, tflite: bool = False, quantization: Quantization | None = None
) -> Iterator[Path]:
    """Write a SavedModel with class names and warm-up records, and prove that it can be served.

    It is written to a temporary directory, loaded as TensorFlow Serving loads it, and compared with Keras on
    the warm-up photos. Further files can be added in the block, at whose end the directory is renamed.

    Args:
        model: what to export.
        directory: the version directory; must not exist.
        tflite: also write the LiteRT part, with the network in float32.
        quantization: what to write the network in 8-bit integers from; None for float32 only.

    Yields:
        The temporary directory.

    Raises:
        ExportError: the directory exists, the loader refuses the model, or its outputs differ.
    """
    if directory.exists():
        raise ExportError(f"cannot export to {directory}: the version directory exists")
    # A model server takes only names of digits for versions, so it ignores the unfinished directory.
    partial = directory.with_name(f"tmp-{directory.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        served = _save(model, partial, tflite=tflite)
        photos = warmup_photos(max(WARMUP_BATCHES))
        extra = partial / EXTRA_ASSETS
        extra.mkdir()
        _write_warmup(extra / WARMUP_FILE, photos)
        expected = expected_outputs(model, photos)
        verify(partial, model, photos, expected)
        if tflite:
            _write_networks(served, model, partial, photos, expected=expected, quantization=quantization)
        yield partial
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_networks(
    served: ServingModule,
    model: Model,
    directory: Path,
    photos: Sequence[bytes],
    *,
    expected: Mapping[str, NDArray[np.float32]],
    quantization: Quantization | None,
) -> None:
    """Write the LiteRT part: the network in float32, with `quantization` in 8-bit integers too.

    A network that has no form in LiteRT is served by TensorFlow alone.
    """
    try:
        network = convert_network(served.parameters(), served.answer, model.network.input_shape[1:])
    except NotConvertibleError as error:
        log.warning("training.not_converted", backbone=model.backbone.name, reason=str(error))
        return
    verify_network(network, model, photos, expected)
    (directory / NETWORK_FILE).write_bytes(network)
    variants = [Variant(FLOAT32, (NETWORK_FILE.name,))]
    if quantization is not None and quantization.photos:
        variants += quantized_variant(served, model, directory / EXTRA_ASSETS, quantization)
    write_manifest(directory, model.backbone, variants)


def _save(model: Model, directory: Path, *, tflite: bool) -> ServingModule:
    with tempfile.TemporaryDirectory() as scratch:
        classes_file = Path(scratch, CLASSES_FILE)
        classes_file.write_text("".join(f"{name}\n" for name in model.classes), "utf-8")
        served = ServingModule(model, classes_file)
        signatures = {SERVING_SIGNATURE: served.serve}
        if tflite:
            signatures[DECODE_SIGNATURE] = tf.function(
                served.decode, input_signature=ENCODED, autograph=False
            )
        tf.saved_model.save(served, str(directory), signatures=signatures)
    make_canonical(directory)
    return served


def warmup_photos(count: int) -> list[bytes]:
    """Draw small JPEGs, the same in every call: coloured gradients with noise, in common aspect ratios."""
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
    """Write one Predict request per batch size; the server runs them before it serves a version."""
    with tf.io.TFRecordWriter(str(path)) as records:
        for batch in WARMUP_BATCHES:
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = SERVING_SIGNATURE
            request.inputs["image"].CopyFrom(tf.make_tensor_proto(photos[:batch], tf.string, [batch]))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            records.write(log.SerializeToString())


def verify(
    directory: Path,
    model: Model,
    photos: Sequence[bytes],
    expected: Mapping[str, NDArray[np.float32]] | None = None,
) -> None:
    """Load a SavedModel as TensorFlow Serving does, by the V1 loader, and compare its outputs with Keras.

    Args:
        directory: the SavedModel.
        model: the trained model.
        photos: encoded photos to run, at least one.
        expected: their `expected_outputs`, if the caller has them.

    Raises:
        ExportError: it cannot be loaded or run, or an output differs by more than `TOLERANCE`.
    """
    try:
        with SavedModel(directory) as saved:
            outputs, empty = saved.predict(photos), saved.predict([])
    except (tf.errors.OpError, RuntimeError, KeyError, OSError, ValueError) as error:
        raise ExportError(
            f"{directory.name}: the V1 loader cannot serve the exported model: {error}"
        ) from error
    # A call without photos takes another path through TensorFlow's kernels: see ServingModule.
    for name, values in empty.items():
        shape = (0, *outputs[name].shape[1:])
        if values.shape != shape:
            raise ExportError(f"{name} of no photos: expected shape {shape}, got {values.shape}")
    _compare(outputs, model, expected or expected_outputs(model, photos))


def verify_network(
    network: bytes,
    model: Model,
    photos: Sequence[bytes],
    expected: Mapping[str, NDArray[np.float32]] | None = None,
) -> None:
    """Run a network converted for LiteRT, and compare its outputs with Keras, as `verify` does.

    Raises:
        ExportError: it cannot be run, or an output differs by more than `TOLERANCE`.
    """
    images = _pixels(model, photos)
    try:
        outputs = run_networks([network], images.numpy())
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"{NETWORK_FILE.name}: LiteRT cannot run the converted network: {error}") from error
    _compare(outputs, model, expected or expected_outputs(model, photos))


def _pixels(model: Model, photos: Sequence[bytes]) -> tf.Tensor:
    return preprocess(model.backbone, tf.constant(list(photos)))


def expected_outputs(model: Model, photos: Sequence[bytes]) -> dict[str, NDArray[np.float32]]:
    """Return Keras' outputs for encoded photos by name."""
    embedding = model.embed(_pixels(model, photos)).numpy()
    return {
        "embedding": embedding,
        "probabilities": softmax(model.head.logits(embedding) / model.temperature, axis=1),
        "novelty": novelty_scores(model.novelty, embedding),
    }


def _compare(
    outputs: Mapping[str, NDArray[np.float32]], model: Model, expected: Mapping[str, NDArray[np.float32]]
) -> None:
    # A distance between embeddings is rounded, and the division by a small scale magnifies that.
    magnified = {"novelty": _DISTANCE_ERROR / (TOLERANCE * model.novelty.scale)}
    for name, values in expected.items():
        scale = max(1.0, float(np.abs(values).max()), magnified.get(name, 0.0))
        difference = float(np.abs(outputs[name] - values).max()) / scale
        if not difference <= TOLERANCE:  # also refuses NaN
            raise ExportError(f"{name}: expected Keras' values within {TOLERANCE}, got {difference:.2g} off")


def pack(directory: Path, bundle: Path) -> PackedBundle:
    """Pack a SavedModel as a tar, with the lists of its parts next to it; equal files give equal bytes.

    Names inside are relative to `directory`.

    Args:
        directory: the SavedModel.
        bundle: the file to write; it is replaced atomically, then its lists are.
    """
    # Not write_atomic: a bundle can be larger than the memory that is free.
    partial = bundle.with_name(f"tmp-{bundle.name}")
    # Not compressed, because float32 weights shrink by little.
    with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(directory.rglob("*")):
            # A new TarInfo has time 0 and no owner, so the bytes depend on names and contents alone.
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
        os.fsync(content.fileno())
    partial.replace(bundle)
    sync_folder(bundle.parent)
    write_part_lists(bundle, digest)
    return PackedBundle(sha256=digest, size_bytes=bundle.stat().st_size)
