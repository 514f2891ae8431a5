"""Rules of cloud/modeling/linear_head.py: logistic regression and temperature."""

import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from cloud.modeling.arrays import Floats, Ints, cross_entropy, effective_sample_size, softmax
from cloud.modeling.linear_head import PRIOR_VARIANCE, fit_head, fit_temperature


def clusters(count: int, classes: int, dim: int, seed: int = 0) -> tuple[Floats, Ints]:
    """Draw points around one centre per class."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dim)) * 2
    labels = np.arange(count) % classes
    return centres[labels] + generator.normal(size=(count, dim)), labels


@pytest.mark.parametrize(("count", "dim"), [(12, 50), (300, 8)])
def test_a_head_separates_separable_classes(count: int, dim: int) -> None:
    """It learns three classes from fewer points than dimensions, and from more."""
    points, labels = clusters(count, 3, dim)
    head = fit_head(points, labels, np.ones(count), 3)
    unseen, truth = clusters(300, 3, dim, seed=1)
    assert np.mean(head.logits(unseen).argmax(axis=1) == truth) > 0.9


def test_examples_of_negligible_weight_change_nothing() -> None:
    """With every point a second time at almost no weight, the optimum is the same."""
    points, labels = clusters(30, 3, 40)
    once = fit_head(points, labels, np.ones(30), 3)
    twice = fit_head(
        np.vstack([points, points]),
        np.concatenate([labels, labels]),
        np.r_[np.ones(30), np.full(30, 1e-9)],
        3,
    )
    np.testing.assert_allclose(once.logits(points), twice.logits(points), atol=1e-2)


def test_the_scale_of_embeddings_does_not_matter() -> None:
    """Embeddings a thousand times as large give the same answers."""
    points, labels = clusters(40, 2, 10)
    small, large = (fit_head(points * s, labels, np.ones(40), 2) for s in (1, 1000))
    np.testing.assert_allclose(small.logits(points), large.logits(points * 1000), atol=1e-3)


def test_a_shift_of_embeddings_does_not_matter() -> None:
    """What all embeddings have in common changes no answer, however large it is."""
    points, labels = clusters(40, 3, 10)
    plain, shifted = (fit_head(points + shift, labels, np.ones(40), 3) for shift in (0.0, 100.0))
    np.testing.assert_allclose(plain.logits(points), shifted.logits(points + 100.0), atol=1e-3)


def test_the_heavier_of_two_contradicting_examples_wins() -> None:
    """Of two examples with one embedding and different labels, the heavier one decides."""
    points, labels = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), np.array([0, 1, 1])
    for heavy in (0, 1):
        weights = np.where(np.arange(3) == heavy, 10.0, 1.0)
        assert fit_head(points, labels, weights, 2).logits(points[:1]).argmax() == heavy


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("dim", [6, 200])
def test_the_head_is_the_maximum_a_posteriori(classes: int, dim: int) -> None:
    """The gradient of weighted loss and Gaussian prior vanishes, for two classes as for more.

    So it does in all dimensions where examples are few, and the head is found in the space that they span.
    The prior is per example of equal weight: it counts as one of `effective_sample_size` examples.
    """
    points, labels = clusters(80, classes, dim)
    weights = np.random.default_rng(1).exponential(size=80)
    head = fit_head(points, labels, weights, classes)
    share = weights / weights.sum()
    scale = np.sqrt(share @ ((points - share @ points) ** 2).sum(axis=1))
    residual = share[:, None] * (softmax(head.logits(points)) - np.eye(classes)[labels])
    prior = head.kernel * scale / (PRIOR_VARIANCE * effective_sample_size(weights))
    np.testing.assert_allclose((points / scale).T @ residual + prior, 0, atol=1e-5)
    np.testing.assert_allclose(residual.sum(axis=0), 0, atol=1e-5)


def test_one_fit_is_like_another() -> None:
    """The same examples give the same numbers, bit by bit."""
    points, labels = clusters(60, 3, 20)
    one, other = (fit_head(points, labels, np.ones(60), 3) for _ in range(2))
    np.testing.assert_array_equal(one.kernel, other.kernel)
    np.testing.assert_array_equal(one.bias, other.bias)


def test_nothing_is_loaded_before_the_first_fit() -> None:
    """The console and the review queue start without scikit-learn and SciPy, which take a second to load."""
    modules = "sys, console.service, cloud.labeling.review_queue"
    program = f"import {modules}; print({{'sklearn', 'scipy'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "set()\n", "")


def test_a_fit_uses_one_thread_of_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads wait for each other on busy cores; afterwards the former number is set again."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # a test may have imported it again

    seen: list[int] = []
    fit = LogisticRegression.fit

    def counting(self: Any, *inputs: Any, **weights: Any) -> Any:
        seen.extend(_blas_threads())
        return fit(self, *inputs, **weights)

    monkeypatch.setattr(LogisticRegression, "fit", counting)
    points, labels = clusters(60, 3, 20)
    with threadpool_limits(limits=2, user_api="blas"):
        before = _blas_threads()
        fit_head(points, labels, np.ones(60), 3)
        assert _blas_threads() == before
    assert seen == [1] * len(before)


def _blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_a_fit_needs_one_copy_of_the_embeddings() -> None:
    """Its peak is the embeddings in double precision, and little more; they are not changed."""
    inputs, labels = clusters(4000, 2, 256)
    embeddings = inputs.astype(np.float32)
    before = embeddings.copy()
    fit_head(embeddings[:100], labels[:100], np.ones(100), 2)  # loads scikit-learn
    tracemalloc.start()
    try:
        fit_head(embeddings, labels, np.ones(len(labels)), 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * 2 * embeddings.nbytes
    np.testing.assert_array_equal(embeddings, before)


def test_a_class_without_an_example_is_refused() -> None:
    """The head would have no column for it."""
    points, labels = clusters(12, 3, 4)
    with pytest.raises(ValueError, match="4 classes"):
        fit_head(points, labels, np.ones(12), 4)


def test_temperature_is_recovered() -> None:
    """Logits three times too large get a temperature near three, calibrated ones near one."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 3)) * 2
    labels = np.array([generator.choice(3, p=p) for p in softmax(logits)])
    assert fit_temperature(logits, labels) == pytest.approx(1, rel=0.1)
    assert fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("classes", [2, 4])
def test_few_correct_answers_give_no_certainty(classes: int) -> None:
    """However large the logits, five correct answers per class give about 6/7, Platt's target.

    The number of classes has almost no effect, else a version with one more class would seem worse
    calibrated. The prior adds up to four points.
    """
    labels = np.arange(5 * classes) % classes
    logits = np.eye(classes)[labels] * 20
    confidence = softmax(logits / fit_temperature(logits, labels)).max(axis=1)
    np.testing.assert_allclose(confidence, 6 / 7, atol=0.045)


def test_ten_unlucky_labels_do_not_take_all_confidence() -> None:
    """Ten held-out labels answered no better than by chance lower the confidence; hundreds take it."""
    labels = np.arange(10) % 2
    answers = np.where(np.arange(10) < 5, labels, 1 - labels)
    logits = np.eye(2)[answers]
    assert 1.1 < fit_temperature(logits, labels) < 3
    assert fit_temperature(np.tile(logits, (60, 1)), np.tile(labels, 60)) > 10


def test_without_held_out_labels_the_temperature_is_one() -> None:
    """No held-out labels leave the logits unchanged."""
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, np.int64)) == 1.0


def test_cross_entropy_of_a_confident_mistake_is_finite() -> None:
    """A probability of 0 for the true class has a large but finite loss."""
    assert 20 < cross_entropy(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])) < 30
