"""A `.tflite` file as a network of ours: its answers are those of LiteRT."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from cloud.export.saved_model import warmup_photos
from cloud.modeling.adopted import (
    AdoptionError,
    ForeignModel,
    ModelSource,
    load_model,
    parse_preprocessing,
)
from cloud.modeling.adopted.litert import litert_graph
from cloud.modeling.arrays import softmax
from cloud.modeling.backbones import preprocess

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*", "ignore:Statistics for quantized inputs"
)

CLASSES = ("cat", "dog", "owl")
SIDE = 16
PHOTOS = warmup_photos(4)


@pytest.fixture(scope="module")
def network() -> Any:
    """A small classifier with the layers of a mobile one."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((SIDE, SIDE, 3))
    images = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu6")(inputs)
    deep = layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)(images)
    images = layers.Add()([images, layers.Activation("hard_silu")(deep)])
    images = layers.MaxPooling2D(3, 2, padding="same")(layers.ZeroPadding2D()(images))
    flat = layers.Concatenate()([layers.Flatten()(images), layers.GlobalAveragePooling2D()(images)])
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(flat))


@cache
def convert(network: Any, kind: str) -> bytes:
    """Convert as users do: floats, weights of 8 bits, or integers from input to output."""
    served = tf.function(
        lambda photos: network(photos, training=False),
        input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32)],
    )
    module = tf.Module()
    module.weights = [weight.value for weight in network.weights]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([served.get_concrete_function()], module)
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind in {"uint8", "int8"}:
        draw = np.random.default_rng(0)
        converter.representative_dataset = lambda: (
            [draw.random((1, SIDE, SIDE, 3), np.float32)] for _ in range(8)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(kind)
    return bytes(converter.convert())


def load(path: Path, named: str | None = "unit", classes: tuple[str, ...] = CLASSES) -> ForeignModel:
    given = None if named is None else parse_preprocessing(named)
    return load_model(ModelSource(path, classes, PHOTOS, given))


def pixels(model: ForeignModel) -> np.ndarray:
    return np.asarray(preprocess(model.backbone, tf.constant(PHOTOS)))


def answers(model: ForeignModel) -> np.ndarray:
    return softmax(model.head.logits(np.asarray(model.network(tf.constant(pixels(model))))))


def interpreted(content: bytes, images: np.ndarray) -> np.ndarray:
    """The answers of LiteRT to numbers of its input's own type, as real numbers."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    [entry], [output] = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in images:
        interpreter.set_tensor(entry["index"], image[np.newaxis].astype(entry["dtype"]))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(output["index"])[0].astype(np.float64))
    scale, zero = output["quantization"]
    return (np.array(rows) - zero) * scale if scale else np.array(rows)


@pytest.mark.parametrize(
    ("kind", "named", "units", "tolerance"),
    [
        ("float32", "unit", lambda images: images / 255, 1e-5),
        ("float16", "signed", lambda images: images / 127.5 - 1, 1e-5),
        ("uint8", None, np.round, 0.02),
        # What the integers stand for is in the file: a range that is named is that of the real numbers.
        ("int8", "unit", lambda images: np.round(images) - 128, 0.02),
    ],
)
def test_answers_are_those_of_the_interpreter(
    kind: str,
    named: str | None,
    units: Callable[[np.ndarray], np.ndarray],
    tolerance: float,
    network: Any,
    tmp_path: Path,
) -> None:
    """Any batch is answered as LiteRT answers each photo; integers follow the file's quantisation."""
    (tmp_path / "m.tflite").write_bytes(convert(network, kind))
    model = load(tmp_path / "m.tflite", named)
    theirs = interpreted((tmp_path / "m.tflite").read_bytes(), units(pixels(model)))
    assert np.ptp(theirs) > 0.1, "the answers differ from each other"
    assert answers(model) == pytest.approx(theirs, abs=tolerance)
    assert model.kind == "LiteRT model"


def test_a_file_that_cannot_be_used_is_refused(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence for: no model, other classes, floats without a range, another size, an operator."""
    path = tmp_path / "m.tflite"
    path.write_bytes(b"\0" * 64)
    with pytest.raises(AdoptionError, match=r"cannot load .*m\.tflite"):
        load(path)
    path.write_bytes(convert(network, "float32"))
    with pytest.raises(AdoptionError, match=r"does not give 2 scores for cat, dog: it has .* \[3\]"):
        load(path, classes=CLASSES[:2])
    with pytest.raises(AdoptionError, match="range is not in the file"):
        load(path, None)
    with pytest.raises(AdoptionError, match="expected size=16x16"):
        load(path, "unit,size=20")
    known = {name: run for name, run in litert_graph.OPERATORS.items() if name != "CONV_2D"}
    monkeypatch.setattr(litert_graph, "OPERATORS", known)
    with pytest.raises(AdoptionError, match=r"known for LiteRT's CONV_2D; adopt the model .* converted from"):
        load(path)


def test_a_translation_that_answers_otherwise_is_refused(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each adoption compares with the interpreter: an operator that were translated wrongly is found."""
    path = tmp_path / "m.tflite"
    path.write_bytes(convert(network, "float32"))
    wrong = {**litert_graph.OPERATORS, "MAX_POOL_2D": litert_graph.OPERATORS["AVERAGE_POOL_2D"]}
    monkeypatch.setattr(litert_graph, "OPERATORS", wrong)
    with pytest.raises(AdoptionError, match=r"differ by [0-9.e-]+ from those of LiteRT"):
        load(path)


def test_one_input_is_taken(tmp_path: Path) -> None:
    """A model of two inputs is refused with their names."""
    two = tf.function(
        lambda left, right: tf.reduce_mean(left + right, [1, 2]),
        input_signature=[tf.TensorSpec([1, SIDE, SIDE, 3], tf.float32, name) for name in ("left", "right")],
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([two.get_concrete_function()], tf.Module())
    (tmp_path / "two.tflite").write_bytes(converter.convert())
    with pytest.raises(AdoptionError, match=r"takes the inputs .*left.*right"):
        load(tmp_path / "two.tflite")
