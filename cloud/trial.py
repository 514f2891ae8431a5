"""Put a model on trial: it and its forerunners answer the same photos, as served, and are compared."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from cloud.card import Card, card_of
from cloud.examples import Example
from cloud.export import SIGNATURE
from cloud.gate import Comparison, Gate, Latency, Slice, aligned, bootstrap_interval, compare, judge
from cloud.head import Floats
from cloud.progress import Progress

BATCH_PHOTOS = 32
ROUNDS = 24
"""How often each model answers one photo to be timed."""
_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Lineage:
    """The versions that a new model is compared with.

    Attributes:
        champion: the newest that was promoted, None if there is none.
        best: the most accurate on gold so far, by the champion's card.
    """

    champion: int | None = None
    best: int | None = None


def lineage(cards: Sequence[Card]) -> Lineage:
    """Find the champion among the cards of all versions."""
    promoted = [card for card in cards if card.gate is not None and card.gate.verdict == "promote"]
    if not promoted:
        return Lineage()
    champion = max(promoted, key=lambda card: card.version)
    return Lineage(champion.version, champion.gate.best if champion.gate else None)


@dataclass(frozen=True, slots=True)
class _Served:
    """A model as a server would load it."""

    card: Card
    answer: Callable[[Sequence[Example]], Floats]


def hold(
    models: Path,
    version: int,
    against: Lineage,
    gold: Sequence[Example],
    audit: Sequence[Example] = (),
    *,
    seed: int,
    progress: Progress,
) -> Gate:
    """Judge a version on disk.

    Args:
        models: holds a directory per version.
        version: the new model.
        against: what it is compared with. A best version whose directory is gone cannot be compared with,
            and the verdict says so.
        gold: photos of the gold set.
        audit: photos of the audit slice that neither model was trained on; their weight is one over the
            probability with which they were drawn.
        seed: of the intervals.
        progress: advances by photos answered.

    Returns:
        The verdict. The latency in it depends on the machine, the rest is the same every time.
    """
    if against.champion is None:
        return judge(version, None, None, [])
    challenger, champion = _load(models / str(version)), _load(models / str(against.champion))
    compared = {against.champion: champion}
    if against.best is not None and (models / str(against.best)).is_dir():
        compared.setdefault(against.best, _load(models / str(against.best)))
    slices: dict[Slice, Sequence[Example]] = {"gold": gold, "audit": audit}
    comparisons = []
    for on, photos in slices.items():
        if photos:
            progress.start(f"answer {on} photos", len(photos) * (1 + len(compared)))
            answers = _answers(challenger, photos, progress)
            comparisons += [
                _compare(on, photos, (old, _answers(old, photos, progress)), (challenger, answers), seed)
                for old in compared.values()
            ]
    latency = _latency(champion, challenger, gold or audit, seed, progress) if gold or audit else None
    return judge(version, against.champion, against.best, comparisons, latency=latency)


def _load(directory: Path) -> _Served:
    loaded = tf.saved_model.load(str(directory))
    signature = loaded.signatures[SIGNATURE]

    def answer(photos: Sequence[Example]) -> Floats:
        # `loaded` is named here because the signature alone does not keep the variables alive.
        assert loaded is not None
        answers = signature(image=tf.constant([photo.image for photo in photos]))
        return np.asarray(answers["probabilities"].numpy(), np.float64)

    return _Served(card_of(directory), answer)


def _answers(model: _Served, photos: Sequence[Example], progress: Progress) -> Floats:
    parts = []
    for start in range(0, len(photos), BATCH_PHOTOS):
        parts.append(model.answer(photos[start : start + BATCH_PHOTOS]))
        progress.advance(len(parts[-1]))
    return np.concatenate(parts)


def _compare(
    on: Slice,
    photos: Sequence[Example],
    old: tuple[_Served, Floats],
    new: tuple[_Served, Floats],
    seed: int,
) -> Comparison:
    names = {*old[0].card.classes, *new[0].card.classes, *(photo.label for photo in photos)}
    classes = sorted(names)
    return compare(
        aligned(old[1], old[0].card.classes, classes),
        aligned(new[1], new[0].card.classes, classes),
        np.array([classes.index(photo.label) for photo in photos]),
        classes,
        on=on,
        against=old[0].card.version,
        weights=np.array([photo.weight for photo in photos]),
        seed=seed,
    )


def _latency(
    champion: _Served, challenger: _Served, photos: Sequence[Example], seed: int, progress: Progress
) -> Latency:
    """Time both in turns, so that whatever else the machine does meets both alike."""
    progress.start("time answers", ROUNDS + _WARM_UP)
    ratios = []
    for number in range(ROUNDS + _WARM_UP):
        photo = [photos[number % len(photos)]]
        order = (champion, challenger) if number % 2 else (challenger, champion)
        took_s = {model.card.version: _timed(model, photo) for model in order}
        if number >= _WARM_UP:
            ratios.append(took_s[challenger.card.version] / took_s[champion.card.version])
        progress.advance()
    measured = np.array(ratios)
    low, high = bootstrap_interval(ROUNDS, lambda drawn: float(np.median(measured[drawn])), seed, 1000)
    return Latency(float(np.median(measured)), low, high)


def _timed(model: _Served, photos: Sequence[Example]) -> float:
    began = time.perf_counter()
    model.answer(photos)
    return time.perf_counter() - began
