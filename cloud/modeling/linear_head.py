"""Linear head of a model: multinomial logistic regression on embeddings, and its temperature."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bus.optional_packages import not_found
from cloud.modeling.arrays import Floats, Ints, cross_entropy, effective_sample_size, softmax

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

PRIOR_VARIANCE = 30.0
"""Variance of each weight's Gaussian prior, for embeddings with a mean square distance of 1 to their mean."""

TEMPERATURE_SPREAD = 0.5
"""Width of the Cauchy prior of a temperature's logarithm, around a temperature of 1."""

_GRADIENT_LIMIT = 1e-6
_FEW = 2  # below as many dimensions per example, finding the basis costs more than it saves
_MAX_ITERATIONS = 2000
_TEMPERATURE_BOUNDS = (0.05, 20.0)
_LOG_TEMPERATURE_ERROR = 1e-4  # a hundredth of a per cent of the temperature
_TEMPERATURES = 25
"""Points of the grid on which the lowest minimum is looked for; two neighbours differ by a quarter."""


@dataclass(frozen=True, slots=True)
class Head:
    """A linear classifier.

    Attributes:
        kernel: `[D, K]`.
        bias: `[K]`.
    """

    kernel: Floats
    bias: Floats

    @classmethod
    def identity(cls, classes: int) -> "Head":
        """Return the head for embeddings that are logits of K classes."""
        return cls(np.eye(classes), np.zeros(classes))

    def cooled(self, temperature: float) -> "Head":
        """Return the head whose logits are divided by a temperature."""
        return Head(self.kernel / temperature, self.bias / temperature)

    def beyond(self, other: "Head") -> "Head":
        """Return what this head adds to the logits of another one."""
        return Head(self.kernel - other.kernel, self.bias - other.bias)

    def logits(self, embeddings: NDArray[np.floating]) -> Floats:
        """Return the logits `[N, K]` of embeddings `[N, D]`."""
        return np.asarray(embeddings @ self.kernel + self.bias, dtype=np.float64)


def fit_head(embeddings: NDArray[np.floating], labels: Ints, weights: Floats, classes: int) -> Head:
    """Fit the maximum a posteriori weights under a Gaussian prior; the bias has no prior. Deterministic.

    Args:
        embeddings: `[N, D]`.
        labels: `[N]`, in [0, classes), each at least once.
        weights: `[N]`, above 0; only their ratios count.
        classes: K, at least 2.

    Returns:
        The head, for unscaled embeddings.

    Raises:
        ValueError: A class has no example.
    """
    if len(np.unique(labels)) < classes:
        raise ValueError(f"cannot fit a head: {classes} classes, but examples of {np.unique(labels)} only")
    # Loaded here: it takes a second, and the console, the review and others fit a head later, if at all.
    # Before the limit below, which counts only for libraries that are loaded. It wants pandas' version alone.
    with not_found("pandas"):
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    # Small matrices: several threads of BLAS wait for each other, up to sixty times as long on busy cores.
    with threadpool_limits(limits=1, user_api="blas"):
        return _fit(embeddings.astype(np.float64), labels, weights, classes, LogisticRegression)


def _fit(
    inputs: Floats, labels: Ints, weights: Floats, classes: int, regression: type["LogisticRegression"]
) -> Head:
    """Fit; `inputs` is overwritten: a second copy of many embeddings is what a training has no memory for."""
    share = weights / weights.sum()
    # What all examples share does not separate classes: without it, the bias is found in fewer iterations.
    mean = share @ inputs
    inputs -= mean
    # One regularisation must suit every backbone, and their embeddings differ in length.
    scale = float(np.sqrt(share @ np.einsum("nd,nd->n", inputs, inputs))) or 1.0
    # The optimum is a sum of examples. Where they are few, it is found in the space that they span, which has
    # fewer dimensions; the penalty is the same there, because the basis is orthonormal.
    basis = None
    if _FEW * len(inputs) <= inputs.shape[1]:
        basis, coordinates = np.linalg.qr(inputs.T)
        inputs = coordinates.T
    # scikit-learn minimises C * (weighted sum of losses) + |kernel|² / 2. With weights that sum to the
    # effective sample size, C is the prior's variance. For two classes it fits one vector, the difference of
    # the two columns: half of it in each column has half the penalty, so C is doubled.
    model = regression(
        C=PRIOR_VARIANCE if classes > 2 else 2 * PRIOR_VARIANCE,  # noqa: PLR2004 - see above
        tol=_GRADIENT_LIMIT,
        max_iter=_MAX_ITERATIONS,
    )
    inputs /= scale
    model.fit(inputs, labels, sample_weight=share * effective_sample_size(weights))
    kernel, bias = model.coef_.T / scale, model.intercept_
    if basis is not None:
        kernel = basis @ kernel
    if classes == 2:  # noqa: PLR2004 - see above
        sides = np.array([-0.5, 0.5])
        kernel, bias = kernel * sides, bias * sides
    return Head(kernel=np.asarray(kernel), bias=np.asarray(bias - mean @ kernel))


def fit_temperature(logits: Floats, labels: Ints, *, prior: bool = True) -> float:
    """Find the most probable temperature by held-out labels, under a Cauchy prior of its logarithm.

    Ten labels, as a first version has, may happen to be answered no better than by chance. Their likelihood
    alone then asks for the highest temperature, and the version would be sure of nothing. A head that is
    fitted under a prior is about calibrated as it is. The prior has heavy tails: logits of other origin may
    be too large by any factor, and a few labels show that.

    Args:
        logits: `[N, K]`, of examples that the classifier was not trained on.
        labels: `[N]`.
        prior: False to find the most likely temperature instead, at which two classifiers are compared: with
            the prior, the one with the larger logits would win if both are right.

    Returns:
        The divisor of the logits, in [0.05, 20]; 1 if there are no examples.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017); the smoothing is from Platt,
    Probabilistic Outputs for Support Vector Machines (1999).
    """
    if len(labels) == 0:
        return 1.0
    return _best_temperature(logits, _smoothed(labels, logits.shape[1]), prior=prior / len(labels))


def match_temperature(logits: Floats, targets: Floats) -> float:
    """Find the temperature whose probabilities are closest to others, by cross-entropy.

    Args:
        logits: `[N, K]`, N at least 1.
        targets: probabilities `[N, K]`.

    Returns:
        The divisor of the logits, in [0.05, 20].
    """
    return _best_temperature(logits, targets, prior=0.0)


def _best_temperature(logits: Floats, targets: Floats, prior: float) -> float:
    """Minimise the cross-entropy minus the logarithm of the prior, of which one has the weight `prior`."""
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - a quarter of a second, see `fit_head`

    def loss(log_temperature: float) -> float:
        surprise = np.log1p((log_temperature / TEMPERATURE_SPREAD) ** 2)
        return cross_entropy(softmax(logits / np.exp(log_temperature)), targets) + prior * float(surprise)

    low, high = np.log(_TEMPERATURE_BOUNDS)
    if prior:
        # Without the prior, the loss has a single minimum. With it there may be two, one of them near 1.
        grid = np.linspace(low, high, _TEMPERATURES)
        best = int(np.argmin([loss(point) for point in grid]))
        low, high = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    # In the logarithm, so that the error is relative.
    found = minimize_scalar(
        loss, bounds=(low, high), method="bounded", options={"xatol": _LOG_TEMPERATURE_ERROR}
    )
    return float(np.exp(found.x))


def _smoothed(labels: Ints, classes: int) -> Floats:
    """Return target distributions `[N, K]` that leave the other classes some probability."""
    counts = np.bincount(labels, minlength=classes)
    # Without smoothing, ten correct answers out of ten would drive the temperature to its lower bound. The
    # amount does not depend on K: one more class must not make a model less confident.
    rest = 1.0 / (counts[labels] + 2)
    targets = np.repeat(rest[:, None] / (classes - 1), classes, axis=1)
    targets[np.arange(len(labels)), labels] = 1 - rest
    return targets
