"""What the head of a group of devices adds to the shared one, which is the prior of a logistic regression."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.modeling.arrays import Floats, Ints, softmax
from cloud.modeling.blas_threads import one_blas_thread
from cloud.modeling.linear_head import Head
from cloud.modeling.whitening import whitening
from schemas.groups.heads import MIN_PROBABILITY, GroupHead, pack_kernel

PRIOR_VARIANCE = 10.0
"""Of each weight that is added, for inputs with a mean square of 1: a third of what the shared head has."""
BIAS_VARIANCE = 1.0

_GRADIENT_LIMIT = 1e-5
_MAX_ITERATIONS = 500


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of the added head: a photo's embedding, and the outputs of the shared head for it.

    Both are affine in the embedding, so that the added head folds into one for embeddings. Where a group has
    other names for the same things, the second part needs few labels to learn that.

    Attributes:
        mean: `[D]`, subtracted from embeddings.
        directions: `[D, d]`, onto which they are projected; None: they stay as they are.
        scale: divides them, so that those of all groups have a mean square of 1.
        shared: the calibrated shared head; None leaves out the second part.
        logit_scale: the same for the logits, each less the mean of its photo's.
    """

    mean: Floats
    directions: Floats | None
    scale: float
    shared: Head | None = None
    logit_scale: float = 1.0

    @classmethod
    def measured_on(
        cls,
        embeddings: NDArray[np.floating],
        likely: Floats,
        *,
        shared: Head | None = None,
        whitened: bool = False,
    ) -> "Inputs":
        """Return the inputs for photos of all groups.

        Args:
            embeddings: `[N, D]`.
            likely: log-probabilities `[N, K]`, by shared heads that were not trained on the photos.
            shared: the calibrated shared head.
            whitened: whether it is on whitened principal components: then these are used.
        """
        mean, directions = whitening(embeddings) if whitened else (embeddings.mean(axis=0, dtype=float), None)
        plain = cls(mean, directions, 1.0).of(embeddings, likely)
        return cls(mean, directions, _mean_length(plain), shared, _mean_length(centred_logits(likely)))

    def of(self, embeddings: NDArray[np.floating], likely: Floats) -> Floats:
        """Return the inputs `[N, d]` of photos, by embeddings `[N, D]` and log-probabilities `[N, K]`."""
        centred = embeddings.astype(np.float64) - self.mean
        seen = (centred if self.directions is None else centred @ self.directions) / self.scale
        if self.shared is None:
            return np.asarray(seen)
        return np.concatenate([seen, centred_logits(likely) / self.logit_scale], axis=1)

    def fold(self, head: Head) -> Head:
        """Return a head for the embeddings from one for the inputs."""
        width = len(self.mean) if self.directions is None else self.directions.shape[1]
        on_embeddings, on_logits = head.kernel[:width], head.kernel[width:] / self.logit_scale
        kernel = (on_embeddings if self.directions is None else self.directions @ on_embeddings) / self.scale
        bias = head.bias - self.mean @ kernel
        if self.shared is not None:
            kernel = kernel + centred_logits(self.shared.kernel) @ on_logits
            bias = bias + centred_logits(self.shared.bias) @ on_logits
        return Head(kernel, bias)


def centred_logits(logits: Floats) -> Floats:
    """Return logits less the mean over the classes, which a softmax ignores."""
    return np.asarray(logits - logits.mean(axis=-1, keepdims=True))


def _mean_length(inputs: Floats) -> float:
    return float(np.sqrt(np.einsum("nd,nd->", inputs, inputs) / len(inputs))) or 1.0


def log_probabilities(probabilities: Floats) -> Floats:
    """Return logarithms `[N, K]` of a model server's probabilities, as an edge computes them."""
    return np.log(np.maximum(probabilities, MIN_PROBABILITY))


def fit_offset(inputs: Floats, offsets: Floats, labels: Ints) -> Head:
    """Find the most likely weights and biases to add to the logits of the shared head. Deterministic.

    Args:
        inputs: `[N, d]`, N at least 1.
        offsets: logits `[N, K]` by shared heads that were not trained on these photos.
        labels: `[N]`, in [0, K); not all classes need an example.

    Returns:
        The added head, for the inputs; 0 where nothing speaks against the shared one.
    """
    from scipy.optimize import minimize  # noqa: PLC0415 - a quarter of a second, see `fit_head`

    count, classes = offsets.shape
    truth = np.eye(classes)[labels]
    # The optimum is a sum of examples: few of them span few dimensions.
    basis = None
    if count < inputs.shape[1]:
        basis, coordinates = np.linalg.qr(inputs.T)
        inputs = coordinates.T
    width = inputs.shape[1]

    def loss(parameters: Floats) -> tuple[float, Floats]:
        kernel, bias = parameters[: width * classes].reshape(width, classes), parameters[width * classes :]
        probabilities = softmax(offsets + inputs @ kernel + bias)
        likely = np.log(np.maximum((probabilities * truth).sum(axis=1), MIN_PROBABILITY))
        errors = probabilities - truth
        penalty = (kernel**2).sum() / PRIOR_VARIANCE + (bias**2).sum() / BIAS_VARIANCE
        gradient = [inputs.T @ errors + kernel / PRIOR_VARIANCE, errors.sum(axis=0) + bias / BIAS_VARIANCE]
        return float(penalty / 2 - likely.sum()), np.concatenate([part.ravel() for part in gradient])

    with one_blas_thread():
        found = minimize(
            loss,
            np.zeros((width + 1) * classes),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _MAX_ITERATIONS, "gtol": _GRADIENT_LIMIT * count},
        ).x
    kernel = found[: width * classes].reshape(width, classes)
    return Head(kernel if basis is None else basis @ kernel, found[width * classes :])


def packed(head: Head, temperature: float) -> GroupHead:
    """Return an added head for embeddings, rounded as the edge gets it."""
    kernel, scale = pack_kernel(head.kernel.T.tolist())
    return GroupHead(kernel, scale, head.bias.tolist(), temperature)


def unpacked(head: GroupHead) -> Head:
    """Return what a packed head adds to the logits."""
    kernel = np.frombuffer(head.kernel, "<f2").astype(np.float64).reshape(len(head.bias), -1)
    return Head(kernel.T * head.scale, np.array(head.bias))


def for_embeddings(head: GroupHead, shared: Head) -> GroupHead:
    """Return a head for embeddings from one for the shared head's answers.

    Args:
        head: for the logarithms of the probabilities, each less the mean of its photo's.
        shared: the calibrated shared head.
    """
    added = unpacked(head)
    kernel = centred_logits(shared.kernel) @ added.kernel
    return packed(Head(kernel, added.bias + centred_logits(shared.bias) @ added.kernel), head.temperature)


def apply_head(head: GroupHead, probabilities: Floats, embeddings: NDArray[np.floating]) -> Floats:
    """Return the probabilities `[N, K]` of photos of a group, as `GroupHead.scores` does one by one."""
    logits = log_probabilities(probabilities) + unpacked(head).logits(embeddings)
    return softmax(logits / head.temperature)


def answer_by_groups(
    heads: Mapping[str, GroupHead],
    groups: Sequence[str],
    probabilities: Floats,
    embeddings: NDArray[np.floating],
) -> Floats:
    """Return the probabilities `[N, K]` of photos, those of a group that has a head by that head.

    Args:
        heads: by group.
        groups: N groups; empty for a photo of none.
        probabilities: `[N, K]`, by the shared head.
        embeddings: `[N, D]`.
    """
    answers, of = probabilities.copy(), np.array(groups)
    for group in set(groups) & heads.keys():
        at = of == group
        answers[at] = apply_head(heads[group], probabilities[at], embeddings[at])
    return answers
