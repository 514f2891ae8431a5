"""The head of a model: multinomial logistic regression on embeddings, and its temperature."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.modeling.arrays import Floats, Ints, cross_entropy, softmax

PRIOR_VARIANCE = 10.0
"""Variance of each weight's Gaussian prior, for embeddings scaled to a mean square norm of 1."""

_BIAS_PENALTY = 1e-4  # next to none; it only keeps the optimum unique
_GRADIENT_LIMIT = 1e-6
_ITERATIONS = 2000
_TEMPERATURE_BOUNDS = (0.05, 20.0)
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class Head:
    """A linear classifier.

    Attributes:
        kernel: `[D, K]`.
        bias: `[K]`.
    """

    kernel: Floats
    bias: Floats

    def logits(self, embeddings: NDArray[np.floating]) -> Floats:
        """Score embeddings `[N, D]` as logits `[N, K]`."""
        return np.asarray(embeddings @ self.kernel + self.bias, dtype=np.float64)


def fit_head(embeddings: NDArray[np.floating], labels: Ints, weights: Floats, classes: int) -> Head:
    """Fit the maximum a posteriori weights under a Gaussian prior.

    Deterministic and without a step size: each step uses an upper bound of the Hessian that holds
    everywhere, with Nesterov's momentum and a restart whenever the momentum points uphill.

    Args:
        embeddings: `[N, D]`.
        labels: `[N]`, in [0, classes).
        weights: `[N]`, above 0; only their ratios count.
        classes: K.

    Returns:
        The head, for unscaled embeddings.

    Source: Böhning, Multinomial logistic regression algorithm (1992), for the bound; O'Donoghue and
    Candès, Adaptive restart for accelerated gradient schemes (2015).
    """
    share = weights / weights.sum()
    scale = float(np.sqrt(share @ (embeddings.astype(np.float64) ** 2).sum(axis=1))) or 1.0
    inputs = np.hstack([embeddings / scale, np.ones((len(labels), 1))])
    effective_count = 1.0 / float(share @ share)  # Kish: as many equally weighted examples say as much
    penalty = np.full((inputs.shape[1], 1), 1.0 / (PRIOR_VARIANCE * effective_count))
    penalty[-1] = _BIAS_PENALTY
    targets = np.eye(classes)[labels]

    def gradient(kernel: Floats) -> Floats:
        residual = share[:, None] * (softmax(inputs @ kernel) - targets)
        return np.asarray(inputs.T @ residual + penalty * kernel)

    kernel = _minimise(gradient, _bound_inverse(inputs, share, penalty), (inputs.shape[1], classes))
    return Head(kernel=kernel[:-1] / scale, bias=kernel[-1])


def _bound_inverse(inputs: Floats, share: Floats, penalty: Floats) -> Callable[[Floats], Floats]:
    """Invert the bound `inputs' diag(share / 2) inputs + penalty`, in the smaller of its two spaces."""
    rows = np.sqrt(0.5 * share)[:, None] * inputs
    if len(rows) >= rows.shape[1]:
        inverse = np.linalg.inv(rows.T @ rows + np.diag(penalty[:, 0]))
        return lambda gradient: np.asarray(inverse @ gradient)
    inner = np.linalg.inv(np.eye(len(rows)) + (rows / penalty.T) @ rows.T)  # Woodbury's identity
    return lambda gradient: np.asarray(
        gradient / penalty - (rows.T @ (inner @ (rows @ (gradient / penalty)))) / penalty
    )


def _minimise(
    gradient: Callable[[Floats], Floats], precondition: Callable[[Floats], Floats], shape: tuple[int, int]
) -> Floats:
    current = ahead = np.zeros(shape)
    momentum = 1.0
    for _ in range(_ITERATIONS):
        slope = gradient(ahead)
        if np.abs(slope).max() < _GRADIENT_LIMIT:
            break
        following = ahead - precondition(slope)
        if np.sum((ahead - following) * (following - current)) > 0:
            momentum, ahead = 1.0, following
        else:
            grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            ahead = following + (momentum - 1) / grown * (following - current)
            momentum = grown
        current = following
    return ahead


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """Find the temperature that makes held-out probabilities most likely.

    The targets are smoothed by the class counts, so that ten right answers out of ten do not claim
    certainty; by as much for any number of classes, so that one more makes no model more modest.

    Args:
        logits: `[N, K]`, of examples that the classifier was not trained on.
        labels: `[N]`.

    Returns:
        The divisor of the logits, in [0.05, 20]; 1 if there are no examples.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017); the smoothing is from Platt,
    Probabilistic Outputs for Support Vector Machines (1999).
    """
    if len(labels) == 0:
        return 1.0
    targets = _smoothed(labels, logits.shape[1])

    def loss(log_temperature: float) -> float:
        return cross_entropy(softmax(logits / np.exp(log_temperature)), targets)

    low, high = np.log(_TEMPERATURE_BOUNDS)
    while high - low > 1e-4:  # noqa: PLR2004 - a hundredth of a per cent of the temperature
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def _smoothed(labels: Ints, classes: int) -> Floats:
    counts = np.bincount(labels, minlength=classes)
    rest = 1.0 / (counts[labels] + 2)
    targets = np.repeat(rest[:, None] / (classes - 1), classes, axis=1)
    targets[np.arange(len(labels)), labels] = 1 - rest
    return targets
