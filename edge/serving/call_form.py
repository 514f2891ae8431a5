"""How to call a model, by its signature: the input for photos and the output with scores. No I/O."""

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edge.serving import messages_pb2 as messages
from schemas.errors import TransientError

SIGNATURE = "serving_default"
_DT_FLOAT, _DT_STRING = 1, 7
_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    6: "int8",
    7: "string",
    9: "int64",
    19: "float16",
}
_ROW_RANK = 2
_NAMES = ("probabilities", "logits")
_BESIDE_SCORES = ("embedding", "novelty")
_ADOPT = "give it the form of docs/model-contract.md, for example with 'gleaner cloud adopt'"


class SignatureError(TransientError):
    """The model cannot classify photos: its signature has another form. Another version may be right."""


@dataclass(frozen=True, slots=True)
class CallForm:
    """The names in a Predict call.

    Attributes:
        image: input that takes the encoded photos.
        scores: output with one row of scores per photo.
        logits: whether the scores are logits; else probabilities.
    """

    image: str = "image"
    scores: str = "probabilities"
    logits: bool = False


def find_form(
    signatures: Mapping[str, messages.SignatureDef],
    classes: int | None,
    scores: Literal["logits", "probabilities"] | None = None,
) -> CallForm:
    """Find out how to call a model.

    Args:
        signatures: of the model, by name.
        classes: number of class names, None if they are unknown.
        scores: what the scores are; None to infer it from the output's name.

    Raises:
        SignatureError: It takes no encoded photos or gives no scores, or another number of them.
    """
    if SIGNATURE not in signatures:
        found = ", ".join(sorted(signatures)) or "none"
        raise SignatureError(f"it has no signature {SIGNATURE}, but {found}", hint=_ADOPT)
    signature = signatures[SIGNATURE]
    output = _output(signature.outputs, classes)
    return CallForm(
        _input(signature.inputs), output, output == "logits" if scores is None else scores == "logits"
    )


def _input(inputs: Mapping[str, messages.TensorInfo]) -> str:
    shown = _shown(inputs)
    if len(inputs) != 1:
        raise SignatureError(f"it takes {shown}, not photos alone", hint=_ADOPT)
    [(name, info)] = inputs.items()
    if info.dtype != _DT_STRING or _shape(info) not in (None, [-1]):
        raise SignatureError(f"it takes {shown}, not encoded photos as string[?]", hint=_ADOPT)
    return name


def _output(outputs: Mapping[str, messages.TensorInfo], classes: int | None) -> str:
    widths = {name: width for name, info in outputs.items() if (width := _width(info)) is not None}
    named = [name for name in _NAMES if name in widths]
    others = [name for name in widths if name not in _BESIDE_SCORES]
    if not named and classes is not None and len(others) > 1:
        others = [name for name in others if widths[name] == classes]
    if not named and len(others) != 1:
        raise SignatureError(
            f"it gives {_shown(outputs)}, and none of them is called probabilities or logits", hint=_ADOPT
        )
    chosen = (named or others)[0]
    if classes is not None and widths[chosen] not in (-1, classes):
        raise SignatureError(
            f"it gives {widths[chosen]} scores ({chosen}) for {classes} class names",
            hint="name as many classes as it has scores, in its release, its assets or `classes` of the edge",
        )
    return chosen


def _width(info: messages.TensorInfo) -> int | None:
    """Return the numbers per photo, -1 if the signature leaves it open; None if it is not a float32 table."""
    shape = _shape(info)
    if info.dtype != _DT_FLOAT or (shape is not None and len(shape) != _ROW_RANK):
        return None
    return -1 if shape is None else shape[1]


def _shape(info: messages.TensorInfo) -> list[int] | None:
    shape = info.tensor_shape
    return None if shape.unknown_rank else [int(dim.size) for dim in shape.dim]


def _shown(tensors: Mapping[str, messages.TensorInfo]) -> str:
    """Return tensors as `image string[?]`, in the order of their names."""
    return ", ".join(f"{name} {_type(info)}" for name, info in sorted(tensors.items())) or "nothing"


def _type(info: messages.TensorInfo) -> str:
    shape = _shape(info)
    sizes = "" if shape is None else ",".join("?" if size < 0 else str(size) for size in shape)
    return f"{_DTYPES.get(info.dtype, f'type {info.dtype}')}[{sizes}]"


def softmax(row: "array[float]") -> "array[float]":
    """Turn a row of logits into probabilities; NaN stays NaN."""
    highest = max(row)  # without the shift, large logits would overflow
    exponentials = [math.exp(value - highest) for value in row]
    total = sum(exponentials)
    return array("f", [value / total for value in exponentials])
