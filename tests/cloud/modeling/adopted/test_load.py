"""Rules of cloud/modeling/adopted/load.py: foreign models of all forms become networks with a head."""

import io
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cloud.export.saved_model import export_saved_model
from cloud.export.serving_module import Model
from cloud.export.v1_loader import SavedModel
from cloud.modeling.adopted import (
    AdoptionError,
    ForeignModel,
    ModelSource,
    answer_warnings,
    load_model,
    parse_preprocessing,
)
from cloud.modeling.arrays import softmax
from cloud.modeling.backbones import preprocess
from cloud.modeling.novelty import NoveltyModel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")

SIDE = 8
THREE = ("cat", "dog", "owl")
TWO = ("cat", "dog")
KERNEL = np.random.default_rng(0).normal(0, 1, (3, 3)).astype(np.float32)


def photo(seed: int) -> bytes:
    """A picture of one colour, which every resizing leaves as it is."""
    colour = np.random.default_rng(seed).integers(0, 256, 3)
    buffer = io.BytesIO()
    Image.fromarray(np.broadcast_to(colour, (20, 30, 3)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


PHOTOS = [photo(seed) for seed in range(4)]
COLOURS = np.stack([np.asarray(Image.open(io.BytesIO(one)))[0, 0] for one in PHOTOS]).astype(np.float64)


def expected(values: np.ndarray, kernel: np.ndarray = KERNEL) -> np.ndarray:
    """The probabilities of a network that averages pixels and multiplies by the kernel."""
    return softmax(values @ kernel)


def save(call: Any, spec: tf.TensorSpec, folder: Path, name: str = "serving_default") -> Path:
    """Save a function as a SavedModel of TensorFlow, as its users do."""
    module = tf.Module()
    module.kernel = tf.Variable(KERNEL)
    function = tf.function(lambda photos: call(module, photos), input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures={name: function})
    return folder


def logits(module: Any, images: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(images, axis=[1, 2]) @ module.kernel


def load(path: Path, classes: tuple[str, ...] = THREE, *, named: str | None = "unit", **options: Any) -> Any:
    given = None if named is None else parse_preprocessing(named)
    return load_model(ModelSource(path, classes, PHOTOS, given, **options))


def answers(model: ForeignModel) -> np.ndarray:
    """The probabilities by the parts, as training and gate compute them."""
    pixels = preprocess(model.backbone, tf.constant(PHOTOS))
    return softmax(model.head.logits(np.asarray(model.network(pixels, training=False))))


def spec(*shape: int | None, of: tf.DType = tf.float32) -> tf.TensorSpec:
    return tf.TensorSpec(shape, of, "x")


FLOATS = spec(None, SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("form", "call", "named", "values"),
    [
        (FLOATS, logits, "unit", COLOURS / 255),
        (FLOATS, lambda m, x: tf.nn.softmax(logits(m, x)), "signed", COLOURS / 127.5 - 1),
        (FLOATS, lambda m, x: tf.nn.softmax(logits(m, x)), "unit,order=bgr", COLOURS[:, ::-1] / 255),
        (
            spec(None, SIDE, SIDE, 3, of=tf.uint8),
            lambda m, x: logits(m, tf.cast(x, tf.float32) / 255.0),
            None,
            COLOURS / 255,
        ),
        (
            spec(None, 3, SIDE, 2 * SIDE),
            lambda m, x: logits(m, tf.transpose(x, [0, 2, 3, 1])),
            "unit",
            COLOURS / 255,
        ),
        (spec(1, SIDE, SIDE, 3), logits, "unit", COLOURS / 255),
        (
            spec(SIDE, SIDE, 3),
            lambda m, x: logits(m, x[tf.newaxis])[0],
            "unit",
            COLOURS / 255,
        ),
        (spec(None, None, None, 3), logits, "unit,size=16", COLOURS / 255),
        (
            spec(None, of=tf.string),
            lambda m, x: logits(
                m,
                tf.map_fn(
                    lambda p: tf.image.resize(tf.io.decode_jpeg(p, 3), (SIDE, SIDE)) / 255.0,
                    x,
                    fn_output_signature=tf.TensorSpec([SIDE, SIDE, 3]),
                ),
            ),
            None,
            COLOURS / 255,
        ),
        (
            spec(of=tf.string),
            lambda m, x: logits(m, (tf.cast(tf.io.decode_png(x, 3), tf.float32) / 255.0)[tf.newaxis]),
            None,
            COLOURS / 255,
        ),
    ],
    ids=["logits", "probabilities", "bgr", "uint8", "channels first, 2:1", "batch of 1", "no batch",
         "any size", "encoded", "one encoded"],
)  # fmt: skip
def test_saved_models_of_every_form(
    form: tf.TensorSpec, call: Any, named: str | None, values: np.ndarray, tmp_path: Path
) -> None:
    """With any form of input and scores, the parts give the probabilities that the model means."""
    model = load(save(call, form, tmp_path / "m"), named=named)
    assert answers(model) == pytest.approx(expected(values), abs=1e-3)


@pytest.mark.parametrize("scores", ["logit", "sigmoid"])
def test_one_score_stands_for_two_classes(scores: str, tmp_path: Path) -> None:
    """A model with one number per photo gives the second of two classes, as Keras' binary models do."""

    def call(module: Any, images: tf.Tensor) -> tf.Tensor:
        one = logits(module, images)[:, :1]
        return tf.sigmoid(one) if scores == "sigmoid" else one * 3.0  # logits exceed 1 or are below 0

    model = load(save(call, FLOATS, tmp_path / "m"), TWO)
    factor = 1 if scores == "sigmoid" else 3
    second = 1 / (1 + np.exp(-(COLOURS / 255 @ KERNEL[:, 0]) * factor))
    assert answers(model)[:, 1] == pytest.approx(second, abs=1e-4)


def classifier(activation: str | None, units: int = 3) -> keras.Model:
    """A Keras network that averages pixels, with its kernel in the last layer."""
    inputs = keras.Input((SIDE, SIDE, 3))
    dense = keras.layers.Dense(units, activation=activation)
    model = keras.Model(inputs, dense(keras.layers.GlobalAveragePooling2D()(inputs)))
    dense.set_weights([KERNEL[:, :units], np.zeros(units, np.float32)])
    return model


@pytest.mark.parametrize("activation", ["softmax", None, "sigmoid"])
def test_the_last_layer_of_a_keras_file_becomes_the_head(activation: str | None, tmp_path: Path) -> None:
    """Then the embedding is what the scores are computed from, as for our own versions."""
    units = 1 if activation == "sigmoid" else 3
    classifier(activation, units).save(tmp_path / "my Model.keras")
    model = load(tmp_path / "my Model.keras", TWO if units == 1 else THREE)
    kernel = np.stack([np.zeros(3), KERNEL[:, 0]], axis=1) if units == 1 else KERNEL
    assert answers(model) == pytest.approx(expected(COLOURS / 255, kernel), abs=1e-4)
    assert model.backbone.name.startswith("my-model-")


@pytest.mark.parametrize("kind", ["uint8", "float16"])
def test_keras_files_of_other_types(kind: str, tmp_path: Path) -> None:
    """8-bit pixels are rounded; what is computed in half precision gives float32."""
    inputs = keras.Input((SIDE, SIDE, 3), dtype=kind)
    policy = "float32" if kind == "uint8" else "mixed_float16"
    scaled = keras.layers.Rescaling(1 / 255, dtype=policy)(inputs)
    dense = keras.layers.Dense(3, dtype=policy)
    model = keras.Model(inputs, dense(keras.layers.GlobalAveragePooling2D(dtype=policy)(scaled)))
    dense.set_weights([KERNEL, np.zeros(3, np.float32)])
    model.save(tmp_path / "m.keras")
    loaded = load(tmp_path / "m.keras", named=None if kind == "uint8" else "raw")
    assert answers(loaded) == pytest.approx(expected(COLOURS / 255), abs=5e-3)
    assert loaded.network.output.dtype == "float32"


def rescaled(scale: float, path: Path) -> None:
    """Save a classifier that rescales its pixels, inside another model as Keras's own networks do."""
    inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), keras.layers.Rescaling(scale)])
    inputs = keras.Input((SIDE, SIDE, 3))
    keras.Model(inputs, classifier("softmax")(inner(inputs))).save(path)


@pytest.mark.parametrize(("scale", "named"), [(1 / 255, "raw"), (2.0, "unit"), (1 / 255, "raw,order=bgr")])
def test_a_model_that_rescales_gets_the_pixels_that_it_takes(
    scale: float, named: str, tmp_path: Path
) -> None:
    """From 0 to 255 it divides them itself; another factor may be for pixels of 0 to 1."""
    rescaled(scale, tmp_path / "m.keras")
    assert load(tmp_path / "m.keras", named=named).kind == "Keras model"


@pytest.mark.parametrize(("weights", "told"), [(0.0, 1), (1.0, 0)])
def test_a_model_that_answers_all_photos_alike_is_pointed_out(
    weights: float, told: int, tmp_path: Path
) -> None:
    """It is not trained, or sees other pixels than in its training."""
    model = classifier("softmax")
    model.layers[-1].set_weights([KERNEL * weights, np.zeros(3)])
    model.save(tmp_path / "m.keras")
    source = ModelSource(
        tmp_path / "m.keras", THREE, [photo(seed) for seed in range(4)], parse_preprocessing("unit")
    )
    warnings = answer_warnings(load_model(source), source)
    assert len(warnings) == told
    assert all("same scores for 4 different photos" in warning for warning in warnings)


def test_a_model_that_gives_nan_is_refused(tmp_path: Path) -> None:
    """Before its export, which would differ from it."""
    model = classifier("softmax")
    model.layers[-1].set_weights([KERNEL * np.nan, np.zeros(3)])
    model.save(tmp_path / "m.keras")
    source = ModelSource(tmp_path / "m.keras", THREE, [photo(1)], parse_preprocessing("unit"))
    with pytest.raises(AdoptionError, match="NaN or infinite scores for ordinary photos; check"):
        answer_warnings(load_model(source), source)


def test_other_keras_files_are_wrapped(tmp_path: Path) -> None:
    """A file without a Dense layer at its end is run as a whole; its embedding is its logits."""
    body = classifier(None)
    keras.Model(body.inputs, keras.layers.Softmax()(body.output)).save(tmp_path / "m.keras")
    model = load(tmp_path / "m.keras")
    assert answers(model) == pytest.approx(expected(COLOURS / 255), abs=1e-4)
    assert model.backbone.embedding_dim == 3


@pytest.mark.parametrize("form", ["keras", "wrapped keras", "saved model"])
def test_the_export_answers_as_the_model(form: str, tmp_path: Path) -> None:
    """Every form passes the check of our export, by TensorFlow Serving's loader, and has a LiteRT part."""
    path = tmp_path / "m.keras"
    if form == "saved model":
        path = tmp_path / "m"
        classifier("softmax").export(path, verbose=False)
    elif form == "keras":
        classifier("softmax").save(path)
    else:
        body = classifier(None)
        keras.Model(body.inputs, keras.layers.Softmax()(body.output)).save(path)
    model = load(path)
    whole = Model(
        model.backbone,
        model.network,
        model.head,
        2.0,
        THREE,
        NoveltyModel.unknown(model.backbone.embedding_dim),
    )
    with export_saved_model(whole, tmp_path / "1", tflite=True):
        pass
    with SavedModel(tmp_path / "1") as saved:
        outputs = saved.predict(PHOTOS)
    assert outputs["probabilities"] == pytest.approx(softmax(COLOURS / 255 @ KERNEL / 2), abs=1e-4)
    assert outputs["novelty"] == pytest.approx(0, abs=1e-4)
    assert (tmp_path / "1/assets.extra/network.tflite").is_file()


def test_another_preprocessing_is_another_model(tmp_path: Path) -> None:
    """Embeddings are cached by the name: it differs with content, preprocessing and classes."""
    classifier("softmax").save(tmp_path / "m.keras")
    names = {
        load(tmp_path / "m.keras", named=named).backbone.name for named in ("unit", "raw", "unit,order=bgr")
    }
    assert len(names) == 3


def lambda_layer(path: Path) -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    doubled = keras.layers.Lambda(lambda x: x * 2)(inputs)
    keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(doubled))).save(path)


def two_inputs(path: Path) -> None:
    a, b = keras.Input((SIDE, SIDE, 3)), keras.Input((4,))
    both = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(a), b])
    keras.Model([a, b], keras.layers.Dense(3)(both)).save(path)


def words(path: Path) -> None:
    inputs = keras.Input((7,))
    keras.Model(inputs, keras.layers.Dense(3)(inputs)).save(path)


def feature_map(path: Path) -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs)).save(path)


def own_layer(path: Path) -> None:
    class Mine(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    inputs = keras.Input((SIDE, SIDE, 3))
    keras.Model(inputs, Mine()(keras.layers.GlobalAveragePooling2D()(inputs))).save(path)


def several_outputs(path: Path) -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    heads = {"a": keras.layers.Dense(3, name="a")(pooled), "b": keras.layers.Dense(3, name="b")(pooled)}
    keras.Model(inputs, [*heads.values(), keras.layers.Dense(7)(pooled)]).save(path)


def test_one_of_several_outputs_of_a_keras_file(tmp_path: Path) -> None:
    """`--output` names the one with the scores, and without it the sentence lists them."""
    several_outputs(tmp_path / "m.keras")
    kernels = {
        one.name: one.kernel.numpy() for one in keras.saving.load_model(tmp_path / "m.keras").layers[2:]
    }
    assert np.allclose(
        answers(load(tmp_path / "m.keras", output="b")), expected(COLOURS / 255, kernels["b"]), atol=1e-3
    )
    for wanted, match in ((None, r"several outputs: a \[3\], b \[3\]"), ("z", "has no output 'z'")):
        with pytest.raises(AdoptionError, match=match):
            load(tmp_path / "m.keras", output=wanted)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda_layer, "has a Lambda layer, whose Python code would run on this machine"),
        (two_inputs, "has 2 inputs"),
        (words, r"input .* is float32 \[\?, 7\]; pixels are taken as"),
        (feature_map, r"gives \[\?, 8, 8, 3\] for a photo"),
        (own_layer, "has layers of its own: .*; export a model with own layers by model.export"),
        (lambda path: zipfile.ZipFile(path, "w").writestr("a.txt", "b"), "is no .keras file; save the model"),
        (lambda path: path.write_bytes(b""), "is empty; save or copy the model again"),
        (lambda path: rescaled(0.5 / 255, path), "rescales pixels itself .*twice; use raw"),
        (lambda path: path.write_bytes(b"junk"), "is no .keras file"),
    ],
)
def test_unusable_keras_files_are_refused(make: Any, match: str, tmp_path: Path) -> None:
    """The error names what is wrong with the file; no code in it runs."""
    make(tmp_path / "m.keras")
    with pytest.raises(AdoptionError, match=match) as caught:
        load(tmp_path / "m.keras")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "call", "options", "match"),
    [
        (FLOATS, logits, {"classes": tuple(f"c{number}" for number in range(1000))},
         "does not give 1000 scores for c0, c1, c2, c3, c4 and 995 more: it has"),
        (FLOATS, lambda m, x: tf.argmax(logits(m, x), -1), {},
         r"no output of one row of floats per photo, and output_0 \(int64 \[\?\]\); name"),
        (FLOATS, lambda m, x: logits(m, x)[:, 0], {}, r"it has output_0 \[1\]; name as many classes"),
        (FLOATS, logits, {"classes": TWO}, "does not give 2 scores for cat, dog: it has output_0 \\[3\\]"),
        (FLOATS, logits, {"named": None}, "their range is not in the file; name it with --preprocessing"),
        (FLOATS, logits, {"named": "unit,size=9"}, "expected size=8x8, got 9x9"),
        (FLOATS, logits, {"named": "raw,order=gray"}, "has 3 channels"),
        (FLOATS, logits, {"output": "other"}, "no output 'other'"),
        (spec(None, SIDE, SIDE, 3, of=tf.uint8), lambda m, x: logits(m, tf.cast(x, tf.float32)),
         {"named": "unit"}, "takes uint8 pixels, which have no other range than 0 to 255; leave out"),
        (spec(of=tf.string), lambda m, x: logits(m, tf.cast(tf.io.decode_png(x, 3), tf.float32)[tf.newaxis]),
         {"named": "signed"}, "takes encoded photos, which have no other range"),
        (FLOATS, lambda m, x: {"a": logits(m, x), "b": logits(m, x)}, {}, "several outputs: .*--output"),
        (FLOATS, lambda m, x: tf.sigmoid(logits(m, x)), {}, "sum to 1; say what they are with --scores"),
        (FLOATS, lambda m, x: logits(m, x) / 0.0, {}, "NaN or infinite"),
        (spec(None, 9), lambda m, x: x[:, :3] @ m.kernel, {}, r"is float32 \[\?, 9\]"),
        (tf.TensorSpec(None, tf.float32, "x"), lambda m, x: logits(m, tf.ensure_shape(x, [None, 8, 8, 3])),
         {}, "of unknown shape"),
        (spec(4, SIDE, SIDE, 3), logits, {}, "a batch has any size or 1"),
        (spec(None, SIDE, SIDE, 7), lambda m, x: logits(m, x[..., :3]), {}, "channels"),
        (spec(None, None, None, 3), logits, {}, "photos of any size; name one in"),
        (spec(None, SIDE, of=tf.string), lambda m, x: tf.zeros([tf.shape(x)[0], 3]), {}, "string"),
        (spec(None, SIDE, SIDE, 3, of=tf.bool), lambda m, x: logits(m, tf.cast(x, tf.float32)), {},
         "is bool"),
    ],
)  # fmt: skip
def test_unusable_saved_models_are_refused(
    form: tf.TensorSpec, call: Any, options: Any, match: str, tmp_path: Path
) -> None:
    """The error names what does not fit, and the option for what is unknown."""
    path = save(call, form, tmp_path / "m")
    with pytest.raises(AdoptionError, match=match) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nothing.keras", "m.h5", "m.pt", "saved_model.pb", "folder", "text.txt"])
def test_other_files_are_refused(name: str, tmp_path: Path) -> None:
    """The error lists what can be adopted, or how to convert the file."""
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name != "nothing.keras":
        path.write_bytes(b"x")
    with pytest.raises(AdoptionError, match=r"adopt|save|SavedModel"):
        load(path)


def test_broken_saved_model_is_refused(tmp_path: Path) -> None:
    """A file whose content does not fit its name is one error message."""
    (tmp_path / "saved_model.pb").write_bytes(b"\x0a\xff junk")
    with pytest.raises(AdoptionError, match="cannot load"):
        load(tmp_path)


def test_signature_is_found_or_named(tmp_path: Path) -> None:
    """A single signature is taken with any name; of several, serving_default."""
    assert load(save(logits, FLOATS, tmp_path / "m", "classify")).kind == "SavedModel"
    module = tf.Module()
    tf.saved_model.save(module, str(tmp_path / "none"))
    with pytest.raises(AdoptionError, match="no signature 'serving_default': its signatures are none"):
        load(tmp_path / "none")
