"""Variant gate: small losses and significant differences keep a variant out of the bundle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.evaluation.paired_comparison import PairedPredictions
from cloud.evaluation.variant_gate import judge_variant


def pair(photos: int, lost: int = 0, won: int = 0) -> PairedPredictions:
    """Predictions for photos of class 0: the graph alone gets `lost` right, the variant alone `won`."""
    graph = np.tile([0.9, 0.1], (photos, 1))
    variant = graph.copy()
    variant[:lost] = [0.4, 0.6]
    graph[lost : lost + won] = [0.4, 0.6]
    return PairedPredictions(graph, variant, np.zeros(photos, np.int64), np.ones(photos))


@pytest.mark.parametrize(
    ("photos", "lost", "won", "served"),
    [
        (400, 0, 0, True),
        (400, 2, 0, True),  # half a point
        (400, 3, 0, False),
        (200, 1, 0, True),
        (20, 1, 0, False),  # five points, on few photos
        (2000, 10, 2, False),  # 0.4 points, and significant
        (2000, 2, 10, False),  # the answers differ, even if they are better
        (2000, 8, 8, True),
    ],
)
def test_a_variant_is_served_if_it_answers_as_the_graph(
    photos: int,
    lost: int,
    won: int,
    served: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    """More than half a point lost, or a significant difference of the answers, refuses a variant."""
    verdict = judge_variant("int8", pair(photos, lost, won), None, exact=False)
    assert verdict.served == served
    assert bool(verdict.reasons) != served
    assert verdict.gold is not None
    assert (verdict.gold.only_champion, verdict.gold.only_challenger) == (lost, won)


def test_the_audit_slice_has_a_veto() -> None:
    """A variant that is good on the gold set and loses on the audit slice is refused."""
    verdict = judge_variant("int8", pair(400), pair(60, 4), exact=False)
    assert not verdict.served
    assert verdict.reasons == ["audit accuracy 100.0% → 93.3% on 60 photos: more than 0.5 points lost"]


def test_without_gold_photos_only_an_exact_variant_is_served() -> None:
    """Without gold photos nothing shows that quantized answers are right; those of float32 were compared."""
    assert judge_variant("float32", None, None, exact=True).served
    assert judge_variant("int8", None, None, exact=False).reasons == ["no gold photos to judge on"]


@given(photos=st.integers(1, 300), lost=st.integers(0, 20), won=st.integers(0, 20))
def test_a_served_variant_never_lost_more_than_the_limit(photos: int, lost: int, won: int) -> None:
    """For any counts, a served variant is at most half a point below the graph."""
    lost, won = min(lost, photos), min(won, photos - min(lost, photos))
    verdict = judge_variant("int8", pair(photos, lost, won), None, exact=False)
    assert not verdict.served or (lost - won) / photos <= 0.005 + 1e-9
