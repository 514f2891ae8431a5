"""A version's wrong answers on the gold set: a file next to its report, which the console shows."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.errors import DECODE_ERRORS, PermanentError

MAX_SUREST = 48
"""Mistakes that the file has; the others are counted."""


class GoldMistake(Struct, frozen=True):
    """A gold photo that a version answered wrong.

    Attributes:
        photo_id: Of the photo.
        answer: The version's.
        truth: The photo's label when the version was measured.
        confidence: Of the answer, calibrated.
    """

    photo_id: str
    answer: str
    truth: str
    confidence: float


class GoldMistakes(Struct, frozen=True):
    """All mistakes of a version on the gold set.

    Attributes:
        photos: Size of the gold set.
        wrong: How many it answered wrong.
        surest: Those that it was surest of, the surest first; at most `MAX_SUREST`.
    """

    photos: int
    wrong: int
    surest: list[GoldMistake]


def find_mistakes(
    probabilities: NDArray[np.floating],
    truth: NDArray[np.integer],
    photo_ids: Sequence[str],
    classes: Sequence[str],
) -> GoldMistakes:
    """Return the mistakes among answers to gold photos.

    Args:
        probabilities: `[N, K]`.
        truth: `[N]`, positions in `classes`.
        photo_ids: N ids.
        classes: K names.
    """
    answers, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(answers != truth)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_SUREST]
    found = [
        GoldMistake(photo_ids[at], classes[answers[at]], classes[truth[at]], round(float(confidence[at]), 4))
        for at in surest
    ]
    return GoldMistakes(len(truth), len(wrong), found)


def read_gold_mistakes(path: Path) -> GoldMistakes | None:
    """Read the file; None if there is none, as for versions of earlier releases.

    Raises:
        PermanentError: It has another format.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=GoldMistakes)
    except FileNotFoundError:
        return None
    except (OSError, *DECODE_ERRORS) as error:
        raise PermanentError(f"cannot read {path}: {error}") from None
