"""A model's prediction for one photo, with confidence, margin and entropy computed from its scores."""

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edge.serving.client import BatchOutput, ModelOutputError
from schemas.groups.heads import GroupHead

_MAX_NOVELTY = 1e6


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's prediction for one photo.

    Args:
        model: Name of the model.
        version: Its version.
        scores: Calibrated probability by class, each in 0 to 1; at least one class.
        embedding: float32, little endian; empty if the model does not output it.
        novelty: Scaled distance to the nearest training photo, above 1 out of distribution; None if unknown.
        temperature: Divides the logits inside the model; None if unknown.
        group: Of the device; empty without one.
        variant: LiteRT variant of the model that answered; empty if unknown, or if its graph did.
    """

    model: str
    version: int
    scores: dict[str, float]
    embedding: bytes
    novelty: float | None = None
    temperature: float | None = None
    group: str = ""
    variant: str = ""

    @property
    def label(self) -> str:
        """The most probable class; among equals the first."""
        return max(self.scores, key=self.scores.__getitem__)

    @property
    def confidence(self) -> float:
        """The probability of `label`."""
        return max(self.scores.values())

    @property
    def margin(self) -> float:
        """Confidence minus the probability of the second class, or confidence if there is only one class."""
        first, second, *_ = *sorted(self.scores.values(), reverse=True), 0.0
        return first - second

    @property
    def entropy(self) -> float:
        """Normalised entropy of the scores: 0 is certain, 1 is uniform.

        It is 1 if all scores are 0, and 0 for a single class.
        """
        total, most = sum(self.scores.values()), math.log(len(self.scores))
        if not total or not most:
            return float(not total)
        shares = (score / total for score in self.scores.values())
        return min(1.0, sum(-share * math.log(share) for share in shares if share) / most)

    @property
    def raw_confidence(self) -> float | None:
        """The confidence without the temperature; None if the temperature is unknown."""
        if self.temperature is None:
            return None
        # softmax(logits / T) is proportional to softmax(logits) ** (1 / T); the logits are not known here.
        highest, temperature = self.confidence, self.temperature
        return highest and 1.0 / sum((score / highest) ** temperature for score in self.scores.values())


def clamp_probability(score: float) -> float:
    """Return a score within 0 to 1; NaN becomes 0, which never counts as confident."""
    return min(max(score, 0.0), 1.0) if score == score else 0.0  # noqa: PLR0124  # NaN differs from itself


def clamp_novelty(novelty: float | None) -> float | None:
    """Return a novelty within the contract's limits; NaN becomes the highest, which is never auto."""
    if novelty is None:
        return None
    return min(max(novelty, 0.0), _MAX_NOVELTY) if novelty == novelty else _MAX_NOVELTY  # noqa: PLR0124


def to_predictions(
    model: str, output: BatchOutput, names: tuple[str, ...] | None, temperature: float | None = None
) -> list[Prediction]:
    """Return the prediction for each photo of a batch.

    Args:
        model: Name of the model.
        output: Output for N photos.
        names: Classes in the order of the model's outputs, None if unknown.
        temperature: Divides the logits inside the model, None if unknown.

    Raises:
        ModelOutputError: The number of names and of probabilities differ, or there are no names.
    """
    width = len(output.probabilities[0])
    if not names or len(names) != width:
        raise ModelOutputError(
            f"model {model} version {output.version}",
            expected=f"{width} class names from its release, its assets or `classes` of the edge",
            got=names,
        )
    return [
        Prediction(
            model=model,
            version=output.version,
            scores=dict(zip(names, map(clamp_probability, row), strict=True)),
            embedding=embedding,
            novelty=clamp_novelty(novelty),
            temperature=temperature,
            variant=output.variant,
        )
        for row, embedding, novelty in zip(
            output.probabilities, output.embeddings, output.novelties, strict=True
        )
    ]


HeadOf = Callable[[int, str], GroupHead | None]
"""From a version and a group to its head; None if the shared head answers."""


def by_groups(
    predictions: list[Prediction], output: BatchOutput, groups: Sequence[str], head_of: HeadOf
) -> list[Prediction]:
    """Answer the photos of devices in groups by the heads of their groups.

    Args:
        predictions: By the shared head, N.
        output: That they were made from.
        groups: N groups; empty for a device of none.
        head_of: Finds the head.
    """
    return [
        prediction if not group else _by_group(prediction, row, group, head_of(prediction.version, group))
        for prediction, row, group in zip(predictions, output.probabilities, groups, strict=True)
    ]


def _by_group(
    prediction: Prediction, probabilities: Sequence[float], group: str, head: GroupHead | None
) -> Prediction:
    if head is None or not fits(head, prediction):
        return replace(prediction, group=group)
    scores = head.scores(probabilities, array("f", prediction.embedding))
    temperature = prediction.temperature
    return replace(
        prediction,
        scores=dict(zip(prediction.scores, map(clamp_probability, scores), strict=True)),
        temperature=None if temperature is None else temperature * head.temperature,
        group=group,
    )


def fits(head: GroupHead, prediction: Prediction) -> bool:
    """Return whether a head is for outputs of these sizes, which only releases are tested for."""
    return len(head.bias) == len(prediction.scores) and 4 * len(head.rows[0]) == len(prediction.embedding)
