"""What a model says of one photo, and how sure it is: plain functions of its scores."""

import math
from dataclasses import dataclass

from edge.serving.client import BatchOutput, ModelUnfitError

_MOST_NOVELTY = 1e6


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one photo.

    Args:
        model: Its name.
        version: Its version.
        scores: Calibrated probability by class, each in 0 to 1; at least one class.
        embedding: float32, little endian; empty if the model gives none.
        novelty: How unlike all that the model was trained on; None if the model does not say.
        temperature: That divided the logits in the model; None if unknown.
    """

    model: str
    version: int
    scores: dict[str, float]
    embedding: bytes
    novelty: float | None = None
    temperature: float | None = None

    @property
    def label(self) -> str:
        """The most probable class; of equals the first."""
        return max(self.scores, key=self.scores.__getitem__)

    @property
    def confidence(self) -> float:
        """The probability of that class."""
        return max(self.scores.values())

    @property
    def margin(self) -> float:
        """That probability less the next one's; without a next class the probability itself."""
        first, second, *_ = *sorted(self.scores.values(), reverse=True), 0.0
        return first - second

    @property
    def entropy(self) -> float:
        """Of the scores, as a share of the most that they could have: 0 is certain, 1 could be anything.

        Scores that are all 0 say nothing, which is 1; a single class leaves no choice, which is 0.
        """
        total, most = sum(self.scores.values()), math.log(len(self.scores))
        if not total or not most:
            return float(not total)
        shares = (score / total for score in self.scores.values())
        return min(1.0, sum(-share * math.log(share) for share in shares if share) / most)

    @property
    def raw_confidence(self) -> float | None:
        """The confidence as it would be without the temperature; None if that is unknown.

        A softmax of logits divided by T is proportional to the softmax without it to the power of 1/T.
        """
        if self.temperature is None:
            return None
        highest, temperature = self.confidence, self.temperature
        return highest and 1.0 / sum((score / highest) ** temperature for score in self.scores.values())


def probability(score: float) -> float:
    """Return a score inside 0 to 1; what is no number counts as 0, so that it never looks certain."""
    return min(max(score, 0.0), 1.0) if score == score else 0.0  # noqa: PLR0124  # NaN differs from itself


def bounded_novelty(novelty: float | None) -> float | None:
    """Return a novelty that every reader takes; what is no number counts as the most, which is never auto."""
    if novelty is None:
        return None
    return min(max(novelty, 0.0), _MOST_NOVELTY) if novelty == novelty else _MOST_NOVELTY  # noqa: PLR0124


def to_predictions(
    model: str, predictions: BatchOutput, names: tuple[str, ...] | None, temperature: float | None = None
) -> list[Prediction]:
    """Return what the model says of each photo of a batch.

    Args:
        model: Its name.
        predictions: Of N photos.
        names: The classes in the order of the model's outputs, None if unknown.
        temperature: That divided the logits in the model, None if unknown.

    Raises:
        ModelUnfitError: The names do not fit the model.
    """
    width = len(predictions.probabilities[0])
    if not names or len(names) != width:
        raise ModelUnfitError(
            f"model {model} version {predictions.version}",
            expected=f"{width} class names from its release or its assets",
            got=names,
        )
    return [
        Prediction(
            model=model,
            version=predictions.version,
            scores=dict(zip(names, map(probability, row), strict=True)),
            embedding=embedding,
            novelty=bounded_novelty(novelty),
            temperature=temperature,
        )
        for row, embedding, novelty in zip(
            predictions.probabilities, predictions.embeddings, predictions.novelties, strict=True
        )
    ]
