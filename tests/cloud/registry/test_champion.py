"""Champion evaluation over many versions, and with classes that only one version knows."""

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloud.dataset.change_log import ChangeLog
from cloud.dataset.example import Example, label_indices
from cloud.dataset.store import Store
from cloud.evaluation import promotion_gate
from cloud.evaluation.metrics import measure
from cloud.evaluation.paired_comparison import PairedPredictions
from cloud.registry.champion import HeldOutAnswers, _by_class, best_so_far, gold_digest, lost_classes
from cloud.registry.registry import Registry
from cloud.registry.renamed_classes import with_current_names
from tests.cloud.bundles import CLASSES, card

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")

GOLD = [Example(f"{number:032x}", b"", CLASSES[number % 2], "human") for number in range(200)]
TRUTH = label_indices(GOLD, CLASSES)


def probabilities_of(answers: np.ndarray) -> np.ndarray:
    """Return probabilities that make these answers."""
    return np.eye(2)[answers] * 0.8 + 0.1


@given(models=st.lists(st.tuples(st.integers(-2, 3), st.sampled_from([0, 0, 5, 60])), max_size=8))
@example(models=[(1, 0)] * 8)
@settings(deadline=None, max_examples=10)
def test_many_small_losses_do_not_add_up(models: list[tuple[int, int]]) -> None:
    """Over any sequence of versions, accuracy stays within the allowed loss of the best one so far.

    Each version is wrong on some photos more or less than the one before. If each loses one photo, the gate
    has to stop the fifth: it also compares with the best champion of all cards.
    """
    answers: dict[int, np.ndarray] = {}
    best, wrong = 0.0, 10
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(folder)
        for version, (more, first) in enumerate([(0, 0), *models], 1):
            wrong = max(0, wrong + more)
            at = np.arange(len(GOLD))
            answers[version] = np.where((at >= first) & (at < first + wrong), 1 - TRUTH, TRUTH)
            champion = registry.champion()
            verdict = None
            if champion is not None:
                pair = (probabilities_of(answers[number]) for number in (champion.card.version, version))
                on_gold = PairedPredictions(*pair, TRUTH, np.ones(len(GOLD)))
                evidence = promotion_gate.Evidence(on_gold, best_so_far(champion, GOLD, on_gold), CLASSES)
                verdict = promotion_gate.decide_promotion(evidence, champion.card.version)
            metrics = measure(probabilities_of(answers[version]), TRUTH, CLASSES)
            made = card(version, verdict)
            registry.write_card(msgspec.structs.replace(made, metrics=metrics, gold_digest=gold_digest(GOLD)))
            serving = registry.champion()
            assert serving is not None
            accuracy = float((answers[serving.card.version] == TRUTH).mean())
            best = max(best, accuracy)
            assert accuracy >= best - promotion_gate.GateLimits().accuracy_loss - 1e-9


def test_a_class_that_only_the_challenger_knows_is_no_loss() -> None:
    """The champion is wrong on photos of a class that it does not know; the challenger has no loss by it.

    Both are equally confident on the classes that both know. Over all photos the champion's confidence of 0.7
    would be close to its accuracy of 67 %, and its calibration would seem better than the challenger's.
    """
    names = ["cat", "dog", "fox"]
    truth = np.arange(300) % 3
    before = np.eye(2, dtype=np.float32)[np.where(truth < 2, truth, 0)] * 0.4 + 0.3
    champion = _by_class(before, ["cat", "dog"], names)
    challenger = np.eye(3)[truth] * 0.55 + 0.15
    answers = PairedPredictions(champion, challenger, truth, np.ones(300))
    assert answers.correct[0].tolist() == (truth < 2).tolist()
    verdict = promotion_gate.decide_promotion(promotion_gate.Evidence(answers, 2 / 3, names), champion=1)
    assert verdict.decision == "promote"


def test_labels_beside_gold_are_of_photos_that_people_were_asked_about() -> None:
    """Neither imported photos, which no camera sent, nor reported mistakes count beside gold photos."""
    lanes = [None, "hard", "feedback", "audit", "auto"]
    photos = [Example(f"{at:032x}", b"", "cat", "human", lane=lane) for at, lane in enumerate(lanes)]
    asked = HeldOutAnswers(photos, np.arange(10.0).reshape(5, 2)).asked()
    assert [photo.lane for photo in asked.photos] == ["hard", "audit", "auto"]
    np.testing.assert_array_equal(asked.probabilities[:, 0], [2, 6, 8])


def test_a_class_is_lost_while_photos_have_it() -> None:
    """A class of the champion that no photo has any more was renamed, merged or forgotten: no loss."""
    assert lost_classes(["bird", "cat", "dog"], ["cat", "dog", "fox"], {"bird", "cat", "fox"}) == ["bird"]
    assert lost_classes(["bird", "cat", "dog"], ["cat", "dog"], {"cat", "dog"}) == []


def test_a_champion_is_compared_by_the_names_that_its_classes_have_now(tmp_path: Path) -> None:
    """A renamed or merged class keeps its answers, else any challenger beats a champion that knows no name.

    A class that got the old name of another one later is another class.
    """
    store = Store.open(tmp_path / "dataset")
    before = msgspec.structs.replace(card(1), classes=["bird", "cat", "kitten"], training_s=5.0)
    assert with_current_names(before, store) == before, "nothing was changed"
    log = ChangeLog.open(store.location)
    for action, detail in (
        ("rename-class", "cat -> tabby"),
        ("rename-class", "tabby -> tom"),
        ("merge-class", "kitten -> tom"),
        ("label", "bird -> tom"),
        ("rename-class", "cat -> lion"),
    ):
        log.record(action, "ann", detail, [])
    now = with_current_names(before, store)
    assert now.classes == ["bird", "tom", "tom"]
    later = datetime.fromtimestamp(time.time() + 60, UTC).isoformat()
    assert (
        with_current_names(msgspec.structs.replace(before, created_at=later), store).classes == before.classes
    )
    answers = np.array([[0.4, 0.3, 0.3], [0.6, 0.3, 0.1]])
    np.testing.assert_allclose(
        _by_class(answers, now.classes, ["fox", "tom", "bird"]), [[0, 0.6, 0.4], [0, 0.4, 0.6]]
    )
    assert lost_classes(now.classes, ["bird"], {"bird", "tom"}) == ["tom"]
