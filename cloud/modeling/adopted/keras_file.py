"""Load a `.keras` file: a classifier to adopt, or a network to train a head on."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cloud.modeling.adopted.class_scores import choose_output
from cloud.modeling.adopted.network import Input, complete, read_input
from cloud.modeling.adopted.parts import ForeignModel, ModelSource, cannot_load, file_name, plan, wrapped
from cloud.modeling.adopted.preprocessing import AdoptionError, Preprocessing
from cloud.modeling.arrays import Floats
from cloud.modeling.decoding import CHANNELS
from cloud.modeling.linear_head import Head
from schemas.text import listed

_CONFIG = "config.json"
_OF_BYTES = 1 / 32
_VECTOR_RANK, _MAP_RANK = 2, 4
_TWO = 2


def load_keras(source: ModelSource) -> ForeignModel:
    """Load a classifier; its last Dense layer becomes the head, where it has one.

    Raises:
        AdoptionError: it cannot be loaded, or its input or output cannot be used.
    """
    model = open_keras(source.path)
    model = _with_scores(model, source)
    tensor, output = _only(model, "inputs", source.path), _only(model, "outputs", source.path)
    form = read_input(tensor.name, tensor.shape, tf.as_dtype(tensor.dtype))
    if len(output.shape) != _VECTOR_RANK:
        raise AdoptionError(
            f"{source.path} gives {_shape(output)} for a photo", hint="a classifier gives one row of scores"
        )
    choose_output({"the output": output.shape[-1]}, source.classes, None)
    head = None if source.scores is not None else _head(model, len(source.classes))
    _check_rescaled_once(model, source.path, source.preprocessing or Preprocessing())
    if head is None or not form.batched or form.channels_first:
        resources = [weight.value for weight in model.weights]
        return wrapped(source, lambda images: model(images, training=False), form, resources, "Keras model")
    preprocessing = complete(form, source.preprocessing)
    body = keras.Model(model.inputs, _last(model).input)
    network, dim = _from_pixels(body, form, preprocessing), int(_last(model).input.shape[-1])
    name = file_name(source.path, source.identity())
    return ForeignModel(plan(name, network.input_shape[1], dim, network), network, head, "Keras model")


def _with_scores(model: Any, source: ModelSource) -> Any:
    """Return a model of several outputs with the one that has the scores alone, by the names of the outputs.

    Raises:
        AdoptionError: no output can be the scores, or several can and none is chosen.
    """
    outputs = getattr(model, "outputs", None) or []
    if len(outputs) < _TWO and source.output is None:
        return model
    names = getattr(model, "output_names", None) or [str(number) for number in range(len(outputs))]
    named = dict(zip(names, outputs, strict=False))
    widths = {name: one.shape[-1] for name, one in named.items() if len(one.shape) == _VECTOR_RANK}
    chosen = choose_output(widths, source.classes, source.output)
    return model if len(outputs) < _TWO else keras.Model(model.inputs, named[chosen])


def embedding_network(
    model: Any, where: Path | str, preprocessing: Preprocessing | None
) -> tuple[keras.Model, int]:
    """Turn a Keras model into a network to train a head on: no classification layer, averaged over places.

    Args:
        model: a model that takes pixels.
        where: what it was loaded from, for messages.
        preprocessing: None if the model takes 8-bit pixels.

    Returns:
        The frozen network from pixels in 0 to 255 to embeddings, and D.

    Raises:
        AdoptionError: its input or output cannot be used.
    """
    tensor, output = _only(model, "inputs", where), _only(model, "outputs", where)
    form = read_input(tensor.name, tensor.shape, tf.as_dtype(tensor.dtype))
    if form.encoded or form.channels_first or not form.batched:
        raise AdoptionError(
            f"{where} takes {_shape(tensor)}", hint="a backbone takes pixels [N, height, width, channels]"
        )
    last = _last(model)
    if isinstance(last, keras.layers.Dense) and _activation(last) in {"softmax", "sigmoid"}:
        output = last.input  # scores of other classes: what they are computed from is the embedding
    if len(output.shape) == _MAP_RANK:
        output = keras.layers.GlobalAveragePooling2D()(output)
    if len(output.shape) != _VECTOR_RANK or output.shape[-1] is None:
        raise AdoptionError(f"{where} gives {_shape(output)}", hint="a backbone gives [N, D] or [N, h, w, D]")
    body = keras.Model(model.inputs, output)
    _check_rescaled_once(model, where, preprocessing or Preprocessing())
    return _from_pixels(body, form, complete(form, preprocessing)), int(output.shape[-1])


def open_keras(path: Path) -> Any:
    """Load a `.keras` file without running code from it.

    Raises:
        AdoptionError: it cannot be loaded, or contains code.
    """
    if not _has_config(path):
        raise AdoptionError(f"{path} is no .keras file", hint="save the model with model.save('NAME.keras')")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError) as error:
        if "safe_mode" in str(error) or "Lambda" in str(error):
            raise AdoptionError(
                f"{path} has a Lambda layer, whose Python code would run on this machine",
                hint="replace it by layers, or export the model with model.export() and adopt the SavedModel",
            ) from None
        hint = "export a model with own layers by model.export(), and adopt the SavedModel"
        if own := _own_layers(path):
            raise AdoptionError(f"{path} has layers of its own: {listed(own)}", hint=hint) from None
        raise cannot_load(path, error, hint) from None


def _has_config(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as content:
        return _CONFIG in content.namelist()


def _own_layers(path: Path) -> list[str]:
    """Return the names of classes in a `.keras` file that are not Keras's own."""
    try:
        with zipfile.ZipFile(path) as content:
            waiting = [json.loads(content.read(_CONFIG))]
    except (OSError, ValueError, RecursionError, zipfile.BadZipFile, zlib.error):
        return []
    found = set()
    while waiting:
        match waiting.pop():
            case {"class_name": str(name), "module": module, "registered_name": registered, **others}:
                if registered is not None and not str(module).startswith("keras"):
                    found.add(str(registered or name))
                waiting += others.values()
            case dict() as others:
                waiting += others.values()
            case list() as others:
                waiting += others
    return sorted(found)


def _check_rescaled_once(model: Any, where: Path | str, preprocessing: Preprocessing) -> None:
    """Refuse pixels in a small range for a model that divides them itself: it would see black pictures.

    Raises:
        AdoptionError: the model has such a layer before its first weights, and the pixels are scaled before.
    """
    layer = _rescaling(model)
    if layer is not None and min(np.abs(preprocessing.scale)) > 1:
        raise AdoptionError(
            f"{where} rescales pixels itself (layer {layer.name!r}), and --preprocessing would do it twice",
            hint="use raw, which leaves them at 0 to 255",
        )


def _rescaling(model: Any) -> Any:
    """Return the layer that brings pixels from 0 to 255 into a small range, None if there is none."""
    for layer in getattr(model, "layers", ()):
        if isinstance(layer, keras.layers.Rescaling):
            return layer if np.max(np.abs(layer.scale)) <= _OF_BYTES else None
        if (inner := _rescaling(layer)) is not None:
            return inner
        if layer.weights:
            return None
    return None


def _only(model: Any, what: str, path: Path | str) -> Any:
    tensors = getattr(model, what, None) or []  # a subclassed model that was never called has none
    if len(tensors) != 1:
        raise AdoptionError(
            f"{path} has {len(tensors)} {what}", hint="a model takes photos and gives one output"
        )
    return tensors[0]


def _last(model: Any) -> Any:
    """Return the layer that computes the output."""
    return next((layer for layer in reversed(model.layers) if layer.output is model.outputs[0]), None)


def _activation(layer: Any) -> str:
    return str(keras.activations.serialize(layer.activation))


def _head(model: Any, classes: int) -> Head | None:
    """Return the last layer as a linear head, None if it is none."""
    last = _last(model)
    if not isinstance(last, keras.layers.Dense) or len(last.input.shape) != _VECTOR_RANK:
        return None
    kernel = np.asarray(last.kernel, np.float64)
    bias = np.asarray(last.bias, np.float64) if last.use_bias else np.zeros(last.units)
    if last.units == classes and _activation(last) in {"softmax", "linear"}:
        # A linear layer behind it, such as Softmax, would be the last one.
        return Head(kernel, bias)
    if last.units == 1 and classes == _TWO and _activation(last) in {"sigmoid", "linear"}:
        return Head(_second(kernel), _second(bias))
    return None


def _second(score: Floats) -> Floats:
    """Return the logits of two classes from that of the second: the first one's is 0."""
    return np.concatenate([np.zeros_like(score), score], axis=-1)


def _from_pixels(body: Any, form: Input, preprocessing: Preprocessing) -> Any:
    """Put the preprocessing before a network: float32 `[N, S, S, 3]` in 0 to 255 to float32 embeddings."""
    size = preprocessing.size_px
    assert size is not None, "the preprocessing is complete"
    side = max(size)
    pixels = keras.Input((side, side, CHANNELS))
    resized = pixels if size == (side, side) else keras.layers.Resizing(*size)(pixels)
    inputs = preprocessing.apply(resized)
    if form.dtype.is_integer:
        inputs = keras.ops.cast(keras.ops.clip(keras.ops.round(inputs), 0, 255), form.dtype.name)
    # A network of mixed precision gives float16.
    network = keras.Model(pixels, keras.ops.cast(body(inputs), "float32"))
    network.trainable = False
    return network


def _shape(tensor: Any) -> str:
    return str(list(tensor.shape)).replace("None", "?")
