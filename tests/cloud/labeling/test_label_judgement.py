"""Rules of cloud/labeling/label_judgement.py: wrong labels are found from embeddings alone."""

from typing import NamedTuple

import numpy as np

from cloud.labeling.label_judgement import LabelledPhoto, judge_labels


class Steps(NamedTuple):
    """Progress that records its calls."""

    told: list[object]

    def start(self, step: str, total: int) -> None:
        self.told.append((step, total))

    def advance(self, count: int = 1) -> None:
        self.told.append(count)


def test_a_label_that_contradicts_its_embedding_is_doubted():
    """With the class that the others suggest; without a second class there is nothing to doubt."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(0, 0.2, (60, 8)).astype(np.float32)
    vectors[30:, 0] += 3
    labels = ["cat"] * 30 + ["dog"] * 30
    labels[4] = "dog"
    photos = [LabelledPhoto(f"{at}", label, "human") for at, label in enumerate(labels)]
    views = np.stack([vectors, vectors])
    steps: list[object] = []
    found = judge_labels(photos, views, seed=0, progress=Steps(steps))
    (_, folds), *advances = steps
    assert steps[0] == ("judge labels", folds), "each fold takes long with many photos"
    assert advances == [1] * folds
    assert [(one.photo_id, one.label, one.suggestion) for one in found] == [("4", "dog", "cat")]
    assert judge_labels([LabelledPhoto("1", "cat", "human")] * 60, views, seed=0) == []


def test_the_order_of_the_photos_does_not_change_the_judgement():
    """Labels come in any order; the same photos with the same labels have the same doubts."""
    generator = np.random.default_rng(0)
    shown = np.arange(90) % 2
    vectors = generator.normal(0, 0.45, (90, 24)).astype(np.float32)
    vectors[:, 0] += 2 * shown
    shown[20] = 1 - shown[20]
    labels = ["cat" if one else "dog" for one in shown]
    photos = [LabelledPhoto(f"{row * 37 % 90:02}", label, "human") for row, label in enumerate(labels)]
    judged = set()
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(90)
        views = np.stack([vectors[order], vectors[order]])
        doubts = judge_labels([photos[row] for row in order], views, seed=0)
        judged.add(tuple(doubt.photo_id for doubt in doubts))
    assert len(judged) == 1
