"""Which versions to serve and what to do next: the rules, and a model checked against them at random."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.modelserver.versions import (
    Act,
    All,
    Latest,
    Specific,
    State,
    Version,
    after_failure,
    aspired,
    begun,
    forgiven,
    next_act,
    numbered,
    retry_due_s,
    surplus,
)

AVAILABLE = Version(State.AVAILABLE, attempts=1)
FAILED = Version(State.END, attempts=6, failed=True)
NOBODY: frozenset[int] = frozenset()


def test_only_names_of_digits_are_versions() -> None:
    """A version directory is named by its number; "0001" is 1, and anything else is ignored."""
    names = ["1", "0002", "tmp-3", "4.5", "-6", "v7", "", "٨", str(2**63), str(2**63 - 1)]
    assert numbered(names) == {1: "1", 2: "0002", 2**63 - 1: str(2**63 - 1)}


def test_of_two_names_for_a_number_the_later_in_the_alphabet_is_taken() -> None:
    """Names "1" and "001" are the same version, read from "1"."""
    assert numbered(["1", "001"]) == numbered(["001", "1"]) == {1: "1"}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Latest(), {5}),
        (Latest(0), {5}),
        (Latest(2), {5, 3}),
        (Latest(9), {1, 3, 5}),
        (All(), {1, 3, 5}),
        (Specific(frozenset({1, 4})), {1}),
    ],
)
def test_the_policy_chooses_among_what_is_there(policy: Latest | All | Specific, expected: set[int]) -> None:
    """Latest takes the highest, all takes each, specific takes those named that are there."""
    assert aspired([1, 5, 3], policy) == expected


@given(st.sets(st.integers(0, 99)), st.integers(0, 5))
def test_latest_leaves_out_nothing_higher(present: set[int], count: int) -> None:
    """No version left out by the policy latest is higher than one that it takes."""
    taken = aspired(present, Latest(count))
    assert len(taken) == min(max(count, 1), len(present))
    assert all(left < min(taken) for left in present - taken)


def test_the_new_version_is_loaded_before_the_old_one_goes() -> None:
    """A swap is: load the new one, then unload the old one, then close it once its last request left."""
    versions = {1: AVAILABLE}
    assert next_act(versions, frozenset({2}), NOBODY, 0.0) == (Act.LOAD, 2)
    versions[2] = AVAILABLE
    assert next_act(versions, frozenset({2}), NOBODY, 0.0) == (Act.UNLOAD, 1)
    versions[1] = Version(State.UNLOADING)
    assert next_act(versions, frozenset({2}), NOBODY, 0.0) is None
    assert next_act(versions, frozenset({2}), frozenset({1}), 0.0) == (Act.CLOSE, 1)
    versions[1] = Version(State.END)
    assert next_act(versions, frozenset({2}), NOBODY, 0.0) is None


def test_the_highest_version_is_loaded_first() -> None:
    """Of several versions to load, the highest comes first."""
    assert next_act({}, frozenset({1, 7, 3}), NOBODY, 0.0) == (Act.LOAD, 7)


def test_an_old_version_stays_while_the_new_one_fails() -> None:
    """A version is not unloaded before one that is wanted serves in its place, however often that fails."""
    for state in (FAILED, Version(State.LOADING, attempts=2, due_s=60.0)):
        assert next_act({1: AVAILABLE, 2: state}, frozenset({2}), NOBODY, 0.0) is None


def test_when_no_version_is_wanted_all_go() -> None:
    """A base path without versions unloads everything."""
    assert next_act({1: AVAILABLE}, frozenset(), NOBODY, 0.0) == (Act.UNLOAD, 1)


def test_a_version_no_longer_wanted_is_not_tried_again() -> None:
    """Removing the directory of a version that waits for its next attempt ends the attempts."""
    waiting = Version(State.LOADING, attempts=1, due_s=60.0)
    assert next_act({2: waiting}, frozenset(), NOBODY, 0.0) == (Act.GIVE_UP, 2)


def test_a_failed_load_is_tried_again_after_the_interval_and_then_ends() -> None:
    """A load is tried 1 + max_retries times, an interval apart, and then stays in END."""
    version, now_s = begun(None), 100.0
    for attempt in (1, 2, 3):
        assert (version.attempts, version.state) == (attempt, State.LOADING)
        version = after_failure(version, max_retries=3, interval_s=60.0, now_s=now_s)
        assert next_act({2: version}, frozenset({2}), NOBODY, now_s + 59.9) is None
        assert retry_due_s({2: version}, frozenset({2})) == now_s + 60.0
        now_s += 60.0
        assert next_act({2: version}, frozenset({2}), NOBODY, now_s) == (Act.LOAD, 2)
        version = begun(version)
    version = after_failure(version, max_retries=3, interval_s=60.0, now_s=now_s)
    assert (version.state, version.failed, version.attempts) == (State.END, True, 4)
    assert next_act({2: version}, frozenset({2}), NOBODY, 1e9) is None


def test_a_version_that_comes_back_is_tried_afresh() -> None:
    """A failure is forgotten once the version is not wanted, and only then."""
    assert forgiven({2: FAILED}, frozenset({2})) == {2: FAILED}
    versions = forgiven({2: FAILED}, frozenset())
    assert versions == {2: replace(FAILED, failed=False)}
    assert next_act(versions, frozenset({2}), NOBODY, 0.0) == (Act.LOAD, 2)
    assert begun(versions[2]).attempts == 1


def test_ended_versions_are_forgotten_beyond_a_number() -> None:
    """Of the ended versions the highest are remembered, and whatever is wanted."""
    versions = {n: Version(State.END) for n in range(10)} | {10: AVAILABLE}
    assert surplus(versions, frozenset({0, 10}), keep=3) == [6, 5, 4, 3, 2, 1]


_SETS = st.lists(
    st.tuples(st.frozensets(st.integers(1, 4)), st.frozensets(st.integers(1, 4))), min_size=1, max_size=6
)


@given(_SETS)
def test_it_settles_and_never_leaves_requests_without_a_version(
    looks: list[tuple[frozenset[int], frozenset[int]]],
) -> None:
    """Whatever is wanted and fails, it settles, and the last version that serves is never unloaded."""
    versions: dict[int, Version] = {}
    for wanted, broken in looks:
        versions = forgiven(versions, wanted)
        for _ in range(50):
            served = {n for n, v in versions.items() if v.state is State.AVAILABLE}
            idle = frozenset(n for n, v in versions.items() if v.state is State.UNLOADING)
            step = next_act(versions, wanted, idle, 0.0)
            if step is None:
                break
            act, number = step
            if act is Act.LOAD and number not in broken:
                versions[number] = AVAILABLE
            elif act is Act.LOAD:
                tried = begun(versions.get(number))
                versions[number] = after_failure(tried, max_retries=0, interval_s=1.0, now_s=0.0)
            elif act is Act.UNLOAD:
                assert not wanted or served - {number}
                versions[number] = Version(State.UNLOADING)
            else:
                versions[number] = Version(State.END)
        else:
            pytest.fail(f"expected it to settle, got {versions} for {wanted}")
        served = {n for n, v in versions.items() if v.state is State.AVAILABLE}
        good = {n for n in wanted if not versions[n].failed}
        assert good == served & wanted
        if good or not wanted:
            assert served == good
