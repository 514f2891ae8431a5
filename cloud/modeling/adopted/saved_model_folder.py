"""Load a SavedModel that others exported, and call its signature."""

from pathlib import Path
from typing import Any

import tensorflow as tf

from cloud.modeling.adopted.class_scores import choose_output
from cloud.modeling.adopted.network import only_input, read_input
from cloud.modeling.adopted.parts import ForeignModel, ModelSource, cannot_load, wrapped
from cloud.modeling.adopted.preprocessing import AdoptionError

SERVING_SIGNATURE = "serving_default"
_ROW_RANK = 2


def load_saved_model(source: ModelSource) -> ForeignModel:
    """Load a SavedModel of TensorFlow 1 or 2, with one input.

    Raises:
        AdoptionError: it cannot be loaded, or its signature cannot be used.
    """
    try:
        loaded = tf.saved_model.load(str(source.path))
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, tf.errors.OpError) as error:
        raise cannot_load(source.path, error) from None
    signature = _signature(source.path, loaded)
    _, inputs = signature.structured_input_signature
    name, spec = only_input(source.path, inputs)
    rank = spec.shape.rank
    form = read_input(name, None if rank is None else spec.shape.as_list(), spec.dtype)
    row_rank = 1 if form.squeezed else _ROW_RANK
    outputs = signature.structured_outputs
    widths = {
        key: None if output.shape.rank is None else output.shape[-1]
        for key, output in outputs.items()
        if output.dtype.is_floating and output.shape.rank in {None, row_rank, _ROW_RANK}
    }
    if not form.squeezed:  # one number per photo
        widths |= {key: 1 for key, one in outputs.items() if one.dtype.is_floating and one.shape.rank == 1}
    others = [f"{key} ({_form(one)})" for key, one in outputs.items() if key not in widths]
    output = choose_output(widths, source.classes, source.output, others)

    def call(tensor: tf.Tensor) -> tf.Tensor:
        return signature(**{name: tensor})[output]

    return wrapped(source, call, form, [loaded], "SavedModel")


def _form(output: tf.TensorSpec) -> str:
    return f"{output.dtype.name} {list(output.shape)}".replace("None", "?")


def _signature(path: Path, loaded: Any) -> Any:
    signatures = loaded.signatures
    if SERVING_SIGNATURE in signatures:
        return signatures[SERVING_SIGNATURE]
    if len(signatures) == 1:
        return next(iter(signatures.values()))
    names = ", ".join(sorted(signatures)) or "none"
    raise AdoptionError(
        f"{path} has no signature {SERVING_SIGNATURE!r}: its signatures are {names}",
        hint="save it with one, for example by Keras' model.export()",
    )
