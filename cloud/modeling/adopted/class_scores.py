"""What a foreign model gives: logits or probabilities, for all classes or for the second of two."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import tensorflow as tf

from cloud.modeling.adopted.preprocessing import AdoptionError
from cloud.modeling.arrays import Floats
from schemas.text import listed

Scores = Literal["logits", "probabilities"]
PREFERRED_OUTPUTS = ("probabilities", "logits", "scores", "predictions")
_MIN_PROBABILITY = 1e-7  # of float32: 0 has no logarithm
_SUM_TOLERANCE = 0.01
_TWO = 2


def fits(width: int | None, classes: int) -> bool:
    """Return True if an output of that width can be the scores of the classes: one may stand for two."""
    return width is None or width == classes or (width == 1 and classes == _TWO)


def choose_output(
    widths: Mapping[str, int | None], classes: Sequence[str], wanted: str | None, others: Sequence[str] = ()
) -> str:
    """Return the name of the output that has the scores.

    Args:
        widths: numbers per photo, by output; None if the model does not declare it.
        classes: K names.
        wanted: the name that the user gave, None to choose.
        others: outputs that are no row of numbers per photo, with their shapes, for messages.

    Raises:
        AdoptionError: no output has K numbers, or several have.
    """
    rows = [f"{name} [{'?' if width is None else width}]" for name, width in widths.items()]
    has = listed(rows) or "no output of one row of floats per photo"
    if others:
        has += f", and {listed(others)}"
    if wanted is not None and wanted not in widths:
        raise AdoptionError(f"the model has no output {wanted!r} of one row per photo", hint=f"it has {has}")
    fitting = [name for name, width in widths.items() if fits(width, len(classes))]
    chosen = [name for name in fitting if wanted is None or name == wanted]
    if not chosen:
        raise AdoptionError(
            f"the model does not give {len(classes)} scores for {listed(classes)}: it has {has}",
            hint="name as many classes as it has scores, in their order, with --classes",
        )
    preferred = [name for name in PREFERRED_OUTPUTS if name in chosen]
    if len(chosen) > 1 and not preferred:
        raise AdoptionError(f"the model has several outputs: {has}", hint="choose one with --output")
    return (preferred or chosen)[0]


def tell_scores(values: Floats, classes: int) -> Scores:
    """Distinguish logits from probabilities by some outputs `[N, W]`.

    Raises:
        AdoptionError: the numbers are not finite, not as many as there are classes, or may be either.
    """
    if values.ndim != _TWO or not fits(values.shape[1], classes):
        raise AdoptionError(f"the model gives {values.shape[1:]} numbers per photo for {classes} classes")
    if not np.isfinite(values).all():
        raise AdoptionError(
            "the model gives NaN or infinite scores for ordinary photos", hint="check --preprocessing"
        )
    if values.min() < 0 or values.max() > 1:
        return "logits"
    if values.shape[1] == 1 or np.abs(values.sum(axis=1) - 1).max() <= _SUM_TOLERANCE:
        return "probabilities"
    raise AdoptionError(
        "the model's scores are within 0 and 1 and do not sum to 1",
        hint="say what they are with --scores logits or --scores probabilities",
    )


def to_logits(values: tf.Tensor, kind: Scores) -> tf.Tensor:
    """Turn scores `[N, W]` into logits `[N, K]`: of one score, those of two classes."""
    if kind == "probabilities":
        bounded = tf.clip_by_value(values, _MIN_PROBABILITY, 1.0)
        logits = tf.math.log(bounded)
        if values.shape[-1] == 1:
            logits -= tf.math.log(tf.clip_by_value(1.0 - values, _MIN_PROBABILITY, 1.0))
    else:
        logits = values
    return tf.concat([tf.zeros_like(logits), logits], axis=1) if values.shape[-1] == 1 else logits
