"""Heads of groups of devices are taken where held-out labels of the group prefer them."""

from array import array

import numpy as np
import pytest

from cloud.modeling.arrays import softmax
from cloud.modeling.linear_head import Head
from cloud.modeling.offset_head import apply_head, packed
from cloud.training.groups.fits import Aligned, confirmed_on_gold, fit_groups

DIM, CLASSES = 8, 2
SURE = 3.0
"""Distance of the two classes in the first component."""


def seen(count: int, seed: int, *, mirrored: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings of two classes and their labels; mirrored: the other label for the same picture."""
    draw = np.random.default_rng(seed)
    kinds = np.arange(count) % CLASSES
    embeddings = draw.normal(size=(count, DIM))
    embeddings[:, 0] += SURE * kinds
    return embeddings.astype(np.float32), np.asarray(1 - kinds if mirrored else kinds, np.int64)


def undecided(count: int) -> np.ndarray:
    """Return the answers of a shared head that has learned both conventions."""
    return np.full((count, CLASSES), 0.5)


def right(embeddings: np.ndarray) -> np.ndarray:
    """Return the answers of a shared head that knows the first convention."""
    logits = np.outer(embeddings[:, 0] - SURE / 2, [-1.0, 1.0]) * SURE / 2
    return softmax(logits.astype(np.float64))


def right_by(probability: float, labels: np.ndarray) -> np.ndarray:
    """Return the answers of a head that gives each right class this probability."""
    return np.where(np.eye(CLASSES)[labels] > 0, probability, 1 - probability)


def joined(*parts: tuple[str, int, bool]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return groups, embeddings and labels of several groups; each with its number of photos."""
    sights = [seen(count, at, mirrored=mirrored) for at, (_, count, mirrored) in enumerate(parts)]
    groups = [name for name, count, _ in parts for _ in range(count)]
    return groups, np.concatenate([one[0] for one in sights]), np.concatenate([one[1] for one in sights])


def test_groups_with_opposite_labels_get_heads_of_their_own():
    """The same picture then has two right answers; photos of no group keep the shared head's."""
    groups, embeddings, labels = joined(("a", 60, False), ("b", 60, True), ("", 60, False))
    shared = undecided(180)
    found = fit_groups(groups, embeddings, shared, labels)
    assert {fit.name: (fit.source, fit.reason) for fit in found.fits} == {"a": ("own", ""), "b": ("own", "")}
    answers = found.held_out(shared)
    for start in (0, 60):
        assert (answers.argmax(axis=1) == labels)[start : start + 60].mean() > 0.85
    assert (answers[120:] == 0.5).all()
    fresh, kinds = seen(200, 9)
    for name, truth in (("a", kinds), ("b", 1 - kinds)):
        served = apply_head(found.heads[name], undecided(200), fresh)
        assert (served.argmax(axis=1) == truth).mean() > 0.85


def test_other_names_for_the_same_things_need_few_labels():
    """Four classes, whose names are exchanged in one group: the shared head's answers are an input too."""
    draw, classes, dim = np.random.default_rng(0), 4, 200
    shared = Head(np.eye(dim, classes) * 4.0, np.full(classes, -2.0))

    def photos(count: int) -> tuple[np.ndarray, np.ndarray]:
        kinds = np.arange(count) % classes
        return (np.eye(classes, dim)[kinds] + draw.normal(0, 0.3, (count, dim))).astype(np.float32), kinds

    embeddings, kinds = photos(24)
    named = np.array([1, 2, 3, 0])
    said = softmax(shared.logits(embeddings))
    found = fit_groups(["a"] * 24, embeddings, said, named[kinds], shared=shared)
    fresh, kinds = photos(200)
    served = apply_head(found.heads["a"], softmax(shared.logits(fresh)), fresh)
    assert (served.argmax(axis=1) == named[kinds]).mean() > 0.8


def test_a_group_that_differs_in_nothing_keeps_the_shared_head():
    """Its own head would only learn the noise of its labels; the reason is reported."""
    taken = 0
    for seed in range(20):
        embeddings, labels = seen(60, seed)
        found = fit_groups(["a"] * 60, embeddings, right(embeddings), labels, seed=seed)
        taken += len(found.heads)
        assert found.heads or "significantly" in found.fits[0].reason
        assert found.heads or (found.held_out(right(embeddings)) == right(embeddings)).all()
    assert taken <= 3


def test_a_new_device_gets_the_best_head_of_another_group_by_its_first_labels():
    """Twelve labels are too few for a group's own head, and enough to choose one."""
    groups, embeddings, labels = joined(("a", 80, False), ("b", 80, True), ("new", 12, True))
    found = fit_groups(groups, embeddings, undecided(172), labels)
    newest = next(fit for fit in found.fits if fit.name == "new")
    assert (newest.source, newest.reason) == ("b", "")
    assert newest.head == found.heads["b"]
    assert newest.group_accuracy > 0.8


FEW = [
    (3, "3 held-out labels are too few: 10 are needed"),
    (12, "12 held-out labels are too few for a head of its own, and no other group has one"),
]


@pytest.mark.parametrize(("labels", "reason"), FEW)
def test_few_labels_are_named_as_the_reason(labels, reason):
    """The card names what is missing."""
    groups, embeddings, truth = joined(("a", labels, True))
    found = fit_groups(groups, embeddings, undecided(labels), truth)
    assert [fit.reason for fit in found.fits] == [reason]
    assert found.heads == {}


def test_without_groups_nothing_is_fitted():
    """An installation without groups trains as before."""
    embeddings, labels = seen(60, 0)
    assert fit_groups([""] * 60, embeddings, right(embeddings), labels).fits == ()


def test_a_gain_of_all_groups_together_is_enough_for_the_aligned_head():
    """But a group whose own labels speak against it keeps the shared one."""
    groups, embeddings, labels = joined(*((f"g{at}", 14, False) for at in range(6)))
    shared, better = right_by(0.7, labels), right_by(0.78, labels)
    better[::4] = right_by(0.6, labels)[::4]  # of fourteen photos, the gain might be chance
    better[:14] = right_by(0.69, labels)[:14]
    head = packed(Head(np.zeros((DIM, CLASSES)), np.zeros(CLASSES)), 0.25)
    heads = {f"g{at}": head for at in range(6)}
    found = fit_groups(groups, embeddings, shared, labels, aligned=Aligned(better, heads))
    sources = {fit.name: fit.source for fit in found.fits if fit.head is not None}
    assert {name for name, source in sources.items() if source == "aligned"} == {"g1", "g2", "g3", "g4", "g5"}


def test_a_head_that_loses_on_gold_photos_of_its_group_is_taken_back():
    """Held-out labels may be of one kind of picture; without gold photos of the group they decide."""
    groups, embeddings, labels = joined(("a", 60, False), ("b", 60, True))
    shared = undecided(120)
    found = fit_groups(groups, embeddings, shared, labels)
    gold, truth = seen(40, 7)
    judged = confirmed_on_gold(found, ["a"] * 20 + ["b"] * 20, gold, right(gold), truth, loss=0.02)
    assert judged.heads.keys() == {"a"}
    lost = judged.fits[1]
    assert "20 gold photos" in lost.reason
    assert lost.gold.challenger < lost.gold.champion
    assert (judged.held_out(shared)[60:] == 0.5).all()
    assert confirmed_on_gold(found, [""] * 40, gold, right(gold), truth, loss=0.02).heads.keys() == {"a", "b"}


def test_the_gate_and_the_edge_compute_the_same():
    """One in numpy for many photos, one without for each."""
    draw = np.random.default_rng(0)
    head = packed(Head(draw.normal(size=(DIM, 3)), draw.normal(size=3)), 1.7)
    embeddings = draw.normal(size=(50, DIM)).astype(np.float32)
    probabilities = softmax(draw.normal(scale=40, size=(50, 3))).astype(np.float32)
    by_gate = apply_head(head, probabilities.astype(np.float64), embeddings)
    by_edge = [
        head.scores(row, array("f", vector.tobytes()))
        for row, vector in zip(probabilities.tolist(), embeddings, strict=True)
    ]
    assert np.abs(by_gate - by_edge).max() < 1e-5


def test_a_bundle_has_no_more_heads_than_an_edge_takes(monkeypatch):
    """Those that gain most stay, and each of the others has the reason."""
    monkeypatch.setattr("schemas.groups.heads.MAX_HEADS", 1)
    groups, embeddings, labels = joined(("a", 40, False), ("b", 80, True))
    found = fit_groups(groups, embeddings, undecided(120), labels)
    assert found.heads.keys() == {"b"}
    assert found.fits[0].reason == "a version has at most 1 heads of groups, those that gain most"
