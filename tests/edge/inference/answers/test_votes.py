"""Rules of votes: which of a device's answers count."""

import msgspec
import pytest

from edge.inference.answers.votes import MAX_DEVICES, Votes
from schemas.messages import Photo, Policy
from schemas.policy_rules import Vote
from tests.nodes import photo_id


def taken(number: int, device: str = "door", *, historical: bool = False) -> Photo:
    """Return a photo of a device."""
    return Photo(photo_id=photo_id(number), node="edge-1", device=device, image=b"x", historical=historical)


def voting(vote: Vote, **by_device: Vote) -> Votes:
    """Return votes by a policy."""
    votes = Votes()
    votes.set_rules(Policy(node="edge-1", vote=vote, votes=by_device))
    return votes


def confirmed(votes: Votes, labels: str, device: str = "door", first: int = 0) -> list[bool | None]:
    """Return whether each of a device's answers counts."""
    return [votes.confirm(taken(first + n, device), label) for n, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("agree", "frames", "labels", "expected"),
    [
        (3, 4, "aaaa", [False, False, True, True]),
        (3, 4, "aabaa", [False, False, False, True, True]),
        (3, 4, "aaabbb", [False, False, True, False, False, True]),
        (3, 4, "ababab", [False] * 6),
        (1, 1, "ab", [None, None]),
        (1, 3, "ab", [True, True]),
        (2, 2, "abba", [False, False, True, False]),
        (9, 2, "aaa", [False, True, True]),  # of another publisher: it cannot ask for more than all
    ],
)
def test_an_answer_counts_if_enough_of_the_latest_agree(agree, frames, labels, expected):
    """The newest answer is among those that vote, and older ones than `frames` are forgotten."""
    assert confirmed(voting(Vote(frames=frames, agree=agree)), labels) == expected


def test_devices_vote_by_themselves():
    """The answers of one device do not count for another, and a device may have its own vote."""
    votes = voting(Vote(frames=2, agree=2), meter=Vote())
    assert confirmed(votes, "a") == [False]
    assert confirmed(votes, "a", "yard", 10) == [False]
    assert confirmed(votes, "ab", "meter", 20) == [None, None]
    assert confirmed(votes, "a", "door", 30) == [True]


def test_neither_late_photos_nor_redeliveries_vote():
    """A late photo does not show the present, and a photo that is classified twice has one vote."""
    votes = voting(Vote(frames=3, agree=2))
    assert votes.confirm(taken(1), "a") is False
    assert votes.confirm(taken(1), "a") is False
    assert votes.confirm(taken(2, historical=True), "a") is None
    assert votes.confirm(taken(3), "a") is True


def test_a_new_policy_keeps_the_answers_so_far():
    """Harvest rules are changed often, and must not make an answer of a calm camera uncertain."""
    votes = voting(Vote(frames=3, agree=3))
    confirmed(votes, "aa")
    votes.set_rules(Policy(node="edge-1", vote=Vote(frames=3, agree=3)))
    assert confirmed(votes, "a", first=5) == [True]


def test_remembered_devices_are_bounded():
    """The device that was silent for longest begins again."""
    votes = voting(Vote(frames=2, agree=2))
    for number in range(MAX_DEVICES + 1):
        votes.confirm(taken(number, f"d-{number}"), "a")
    assert votes.confirm(taken(9001, "d-1"), "a") is True
    assert votes.confirm(taken(9002, "d-0"), "a") is False


def test_a_vote_of_no_frames_is_refused():
    """The contract bounds both numbers."""
    for wrong in (b'{"frames": 0}', b'{"agree": 0}', b'{"frames": 65}'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(wrong, type=Vote)
