from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.tally import percentile
from tests.demo.conftest import line, outcome, tally


def test_each_photo_counts_once():
    """Two results of a photo are one answered photo; a photo without a result is lost."""
    counted = tally(line(1), line(1), line(2), sent=4)
    assert (counted.answered, counted.lost) == (2, 2)


def test_a_deferred_result_is_not_final():
    """A deferred result counts as failed, and its photo as lost until the final result arrives."""
    counted = tally(line(1, status="deferred"), sent=1)
    assert (counted.answered, counted.lost, counted.failed) == (0, 1, 1)
    counted.add(line(1))
    assert (counted.answered, counted.lost, counted.failed) == (1, 0, 1)


def test_a_rejected_photo_is_answered_and_failed():
    """A rejection is a final result, but not a classification."""
    counted = tally(line(1, status="rejected", label=None, harvest=None, code="corrupt-image"))
    assert (counted.lost, counted.failed, counted.harvested()) == (0, 1, [])


def test_photos_not_harvested_are_counted_by_reason():
    """They are counted by the reason of the edge."""
    counted = tally(line(1), line(2, harvest="near-duplicate"), line(3, harvest="near-duplicate"))
    assert counted.not_harvested() == {"near-duplicate": 2}


def test_the_rate_is_from_the_first_to_the_last_result():
    """Eleven results within ten seconds are one per second."""
    assert tally(*(line(number) for number in range(11))).rate_per_s == pytest.approx(1.0)
    assert tally().rate_per_s == 0.0


@given(values=st.lists(st.floats(0, 1e6), min_size=1), share=st.floats(0, 1))
def test_a_percentile_is_one_of_the_values(values: list[float], share: float):
    """A percentile is one of the values, and grows with the share."""
    ordered = sorted(values)
    assert percentile(ordered, share) in ordered
    assert percentile(ordered, 0) <= percentile(ordered, share) <= percentile(ordered, 1)


def test_the_table_has_the_gain_of_each_source_of_labels():
    """Gains are counted from version 1 to human labels, and from there to harvested photos."""
    rows = dict(outcome(right=91, human=0.885).rows())
    assert rows["version 1, 10 labels"].startswith("80.0% of 100 gold photos")
    assert rows["  20 labels by the reviewer"] == "+8.5 points, to 88.5%"
    assert rows["  16 harvested photos"] == "+2.5 points, to 91.0%"
    assert rows["not harvested"] == "1 between-thresholds"
    assert rows["failed during the swap"] == "0 of 10 (5 by version 1, 5 by version 2)"


def test_the_table_has_a_row_for_harvested_photos_in_any_case():
    """A candidate that was not chosen is marked, and a missing one has its reason."""
    assert dict(outcome(chosen="human").rows())["  16 harvested photos"].endswith(", left out")
    alone = dict(outcome(tried=1, chosen="human").rows())
    assert alone["  harvested photos"] == "none was confident and confirmed"


def test_a_good_run_has_no_problem():
    """A run without losses and failures, and with a better version 2, is a success."""
    assert outcome().problem() is None


def test_nothing_is_left_to_gain_after_a_first_version_without_mistakes():
    """Two versions that get every gold photo right do not fail the run; a loss still does."""
    perfect = outcome(right=100)
    same = replace(perfect, first=perfect.second)
    assert same.problem() is None
    assert replace(outcome(right=99), first=perfect.second).problem() is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replay": tally(line(1), sent=3)}, "2 photos lost"),
        (
            {"live": tally(line(1), line(2, status="deferred"), line(2), sent=2)},
            "1 of 2 photos failed during the swap",
        ),
        ({"live": tally(line(1), line(2))}, "classified by the same version"),
        ({"right": 80}, "not better than version 1 on gold (80.0% and 80.0%)"),
    ],
)
def test_a_problem_is_one_sentence(changes: dict[str, object], message: str):
    """Lost photos, failed photos, a missing swap and no gain make the run a failure."""
    problem = outcome(**changes).problem()
    assert problem is not None
    assert message in problem
