import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.tally import percentile
from tests.demo.conftest import line, outcome, tally


def test_each_photo_counts_once():
    """A photo that is answered twice is one answered photo, and one that is not answered is lost."""
    counted = tally(line(1), line(1), line(2), sent=4)
    assert (counted.answered, counted.lost) == (2, 2)


def test_a_deferred_answer_is_no_answer():
    """A deferred result counts as failed, and its photo as lost until the final one comes."""
    counted = tally(line(1, status="deferred"), sent=1)
    assert (counted.answered, counted.lost, counted.failed) == (0, 1, 1)
    counted.add(line(1))
    assert (counted.answered, counted.lost, counted.failed) == (1, 0, 1)


def test_a_rejected_photo_is_answered_and_failed():
    """A rejection is an answer, so nothing is lost, but it is no classification."""
    counted = tally(line(1, status="rejected", label=None, harvest=None, code="corrupt-image"))
    assert (counted.lost, counted.failed, counted.harvested()) == (0, 1, [])


def test_refusals_are_counted_by_reason():
    """What is not harvested is counted under the reason that the edge gave."""
    counted = tally(line(1), line(2, harvest="near-duplicate"), line(3, harvest="near-duplicate"))
    assert counted.refused() == {"near-duplicate": 2}


def test_the_rate_is_that_between_the_first_answer_and_the_last():
    """Eleven answers in ten seconds are one a second."""
    assert tally(*(line(number) for number in range(11))).per_s == pytest.approx(1.0)
    assert tally().per_s == 0.0


@given(values=st.lists(st.floats(0, 1e6), min_size=1), share=st.floats(0, 1))
def test_a_percentile_is_one_of_the_values(values: list[float], share: float):
    """It is a value that occurred, at most the largest, and grows with the share."""
    ordered = sorted(values)
    assert percentile(ordered, share) in ordered
    assert percentile(ordered, 0) <= percentile(ordered, share) <= percentile(ordered, 1)


def test_the_table_says_what_each_source_of_labels_added():
    """Points are counted from version 1 to people's labels, and from there to the harvested photos."""
    rows = dict(outcome(right=91, human=0.885).rows())
    assert rows["version 1, 10 labels"].startswith("80.0% of 100 gold photos")
    assert rows["  20 labels by a person"] == "+8.5 points, to 88.5%"
    assert rows["  16 harvested photos"] == "+2.5 points, to 91.0%"
    assert rows["not harvested"] == "1 between-thresholds"
    assert rows["failed during the swap"] == "0 of 10 (5 by version 1, 5 by version 2)"


def test_the_table_says_when_the_harvest_was_left_out_or_empty():
    """A candidate that was not chosen is marked, and no harvested candidate at all is said."""
    assert dict(outcome(chosen="human").rows())["  16 harvested photos"].endswith(", left out")
    alone = dict(outcome(tried=1, chosen="human").rows())
    assert alone["  harvested photos"] == "none was sure enough and confirmed"


def test_a_good_run_is_a_success():
    """Nothing lost, nothing failed and a better version leave no problem."""
    assert outcome().problem() is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"replay": tally(line(1), sent=3)}, "2 photos lost"),
        (
            {"watch": tally(line(1), line(2, status="deferred"), line(2), sent=2)},
            "1 of 2 photos failed during the swap",
        ),
        ({"watch": tally(line(1), line(2))}, "answered by one version alone"),
        ({"right": 80}, "not better than version 1 on gold (80.0% and 80.0%)"),
    ],
)
def test_a_problem_is_said_in_a_sentence(changes: dict[str, object], says: str):
    """Whatever the demonstration is to show and did not is its result."""
    problem = outcome(**changes).problem()
    assert problem is not None
    assert says in problem
