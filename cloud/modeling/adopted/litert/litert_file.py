"""Load a `.tflite` file as a graph of TensorFlow, and compare it with what LiteRT computes."""

from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bus.log import native_stderr_hidden
from cloud.modeling.adopted.class_scores import choose_output
from cloud.modeling.adopted.litert.litert_graph import LiteRTGraph, Scale
from cloud.modeling.adopted.network import Reference, only_input, read_input
from cloud.modeling.adopted.parts import ForeignModel, ModelSource, cannot_load, wrapped
from cloud.modeling.adopted.preprocessing import Preprocessing

EXACT, ROUNDED = 1e-3, 0.1
"""Largest difference of a probability from LiteRT's: of real numbers, and where LiteRT rounds each step."""
_INT8_OFFSET = 128


def load_litert(source: ModelSource) -> ForeignModel:
    """Load a classifier; where it ends in a softmax, what comes before is used.

    Raises:
        AdoptionError: LiteRT cannot load it, it has another number of inputs than one, an operator or an
            output that cannot be used, or TensorFlow's answers differ.
    """
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - a large library

    content = source.path.read_bytes()
    try:
        with native_stderr_hidden():
            interpreter = Interpreter(model_content=content, num_threads=1)
    except (ValueError, RuntimeError) as error:
        raise cannot_load(source.path, error) from None
    graph = LiteRTGraph(content)
    name, entry = only_input(source.path, graph.inputs)
    widths = {key: graph.shape(at)[-1] for key, at in graph.outputs.items() if len(graph.shape(at)) == 2}  # noqa: PLR2004 - rows
    output = graph.outputs[choose_output(widths, source.classes, source.output)]
    scores = graph.before_softmax(output)
    scale = graph.scale(entry)
    form = read_input(name, graph.shape(entry), tf.as_dtype(graph.type(entry)))
    given = source.preprocessing
    if given is None and scale is not None:
        given = _of_integers(scale, graph.type(entry))
    # LiteRT's batch of one is a default: the graph takes any number of photos.
    form = replace(form, batched=not form.squeezed, dtype=tf.float32 if scale is not None else form.dtype)

    def original(inputs: NDArray[Any]) -> NDArray[np.float32]:
        shape = list(inputs.shape)
        shape[0] = 1
        interpreter.resize_tensor_input(entry, shape)
        interpreter.allocate_tensors()
        return np.concatenate([_run(interpreter, graph, entry, row[np.newaxis], output) for row in inputs])

    told = "logits" if scores != output else source.scores
    reference = Reference(
        original,
        "LiteRT",
        ROUNDED if graph.quantised else EXACT,
        "probabilities" if scores != output else None,
    )
    called = tf.function(lambda images: graph.run(tf.cast(images, tf.float32), scores), autograph=False)
    chosen = replace(source, preprocessing=given, scores=told)
    return wrapped(chosen, called, form, graph.weights, "LiteRT model", reference=reference)


def _of_integers(scale: Scale, kind: str) -> Preprocessing:
    """Return the preprocessing by which the integers of an input are the pixels, or the pixels less 128."""
    zero = int(scale.zero[0]) + (_INT8_OFFSET if kind == "int8" else 0)
    return Preprocessing((float(zero),), (1.0 / float(scale.scale[0]),))


def _run(
    interpreter: Any, graph: LiteRTGraph, entry: int, row: NDArray[Any], output: int
) -> NDArray[np.float32]:
    """Run one photo, real numbers, and return the output as real numbers."""
    scale, kind = graph.scale(entry), np.dtype(graph.type(entry))
    if scale is not None and kind.kind in "iu":
        limits = np.iinfo(kind)
        row = np.clip(np.round(row / scale.scale + scale.zero), limits.min, limits.max)
    interpreter.set_tensor(entry, row.astype(kind))
    interpreter.invoke()
    values = interpreter.get_tensor(output)
    scale = graph.scale(output)
    return np.asarray(values if scale is None else scale.real(values), np.float32)
