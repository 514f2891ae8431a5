"""Which versions to serve and the next action: the rules, and random sequences checked against them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.modelserver.models.versions import (
    Action,
    All,
    Latest,
    Specific,
    State,
    Version,
    after_failure,
    aspired_versions,
    clear_failures,
    excess_ended,
    next_action,
    retry_due_s,
    start_attempt,
    version_directories,
)

AVAILABLE = Version(State.AVAILABLE, attempts=1)
FAILED = Version(State.END, attempts=6, failed=True)
NOBODY: frozenset[int] = frozenset()


def test_only_names_of_digits_are_versions() -> None:
    """A version directory is named by its number; "0001" is 1; other names are ignored."""
    names = ["1", "0002", "tmp-3", "4.5", "-6", "v7", "", "٨", str(2**63), str(2**63 - 1)]
    assert version_directories(names) == {1: "1", 2: "0002", 2**63 - 1: str(2**63 - 1)}


def test_of_two_names_for_a_number_the_last_is_used() -> None:
    """Names "1" and "001" are the same version, read from "1"."""
    assert version_directories(["1", "001"]) == version_directories(["001", "1"]) == {1: "1"}


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
def test_the_policy_selects_present_versions(policy: Latest | All | Specific, expected: set[int]) -> None:
    """Latest selects the highest, all selects every one, specific selects those listed and present."""
    assert aspired_versions([1, 5, 3], policy) == expected


@given(st.sets(st.integers(0, 99)), st.integers(0, 5))
def test_latest_selects_the_highest(present: set[int], count: int) -> None:
    """No version left out by the policy latest is higher than a selected one."""
    taken = aspired_versions(present, Latest(count))
    assert len(taken) == min(max(count, 1), len(present))
    assert all(left < min(taken) for left in present - taken)


def test_the_new_version_is_loaded_before_the_old_one_is_unloaded() -> None:
    """A swap is: load the new one, unload the old one, close it after its last request."""
    versions = {1: AVAILABLE}
    assert next_action(versions, frozenset({2}), NOBODY, 0.0) == (Action.LOAD, 2)
    versions[2] = AVAILABLE
    assert next_action(versions, frozenset({2}), NOBODY, 0.0) == (Action.UNLOAD, 1)
    versions[1] = Version(State.UNLOADING)
    assert next_action(versions, frozenset({2}), NOBODY, 0.0) is None
    assert next_action(versions, frozenset({2}), frozenset({1}), 0.0) == (Action.CLOSE, 1)
    versions[1] = Version(State.END)
    assert next_action(versions, frozenset({2}), NOBODY, 0.0) is None


def test_the_highest_version_is_loaded_first() -> None:
    """Of several versions to load, the highest comes first."""
    assert next_action({}, frozenset({1, 7, 3}), NOBODY, 0.0) == (Action.LOAD, 7)


def test_an_old_version_stays_while_the_new_one_fails() -> None:
    """A version is not unloaded before a wanted one is available, no matter how often that one fails."""
    for state in (FAILED, Version(State.LOADING, attempts=2, due_s=60.0)):
        assert next_action({1: AVAILABLE, 2: state}, frozenset({2}), NOBODY, 0.0) is None


def test_without_a_wanted_version_all_are_unloaded() -> None:
    """A base path without versions unloads everything."""
    assert next_action({1: AVAILABLE}, frozenset(), NOBODY, 0.0) == (Action.UNLOAD, 1)


def test_an_unwanted_version_is_not_retried() -> None:
    """Removing the directory of a version that waits for its next load attempt ends the attempts."""
    waiting = Version(State.LOADING, attempts=1, due_s=60.0)
    assert next_action({2: waiting}, frozenset(), NOBODY, 0.0) == (Action.ABANDON, 2)


def test_a_failed_load_is_retried_after_the_interval() -> None:
    """A load is attempted 1 + max_retries times, an interval apart; then the version stays in END."""
    version, now_s = start_attempt(None), 100.0
    for attempt in (1, 2, 3):
        assert (version.attempts, version.state) == (attempt, State.LOADING)
        version = after_failure(version, max_retries=3, interval_s=60.0, now_s=now_s)
        assert next_action({2: version}, frozenset({2}), NOBODY, now_s + 59.9) is None
        assert retry_due_s({2: version}, frozenset({2})) == now_s + 60.0
        now_s += 60.0
        assert next_action({2: version}, frozenset({2}), NOBODY, now_s) == (Action.LOAD, 2)
        version = start_attempt(version)
    version = after_failure(version, max_retries=3, interval_s=60.0, now_s=now_s)
    assert (version.state, version.failed, version.attempts) == (State.END, True, 4)
    assert next_action({2: version}, frozenset({2}), NOBODY, 1e9) is None


def test_a_version_that_comes_back_is_loaded_again() -> None:
    """A failure is cleared once the version is not wanted, and only then."""
    assert clear_failures({2: FAILED}, frozenset({2})) == {2: FAILED}
    versions = clear_failures({2: FAILED}, frozenset())
    assert versions == {2: replace(FAILED, failed=False)}
    assert next_action(versions, frozenset({2}), NOBODY, 0.0) == (Action.LOAD, 2)
    assert start_attempt(versions[2]).attempts == 1


def test_ended_versions_are_bounded() -> None:
    """The highest ended versions are kept, and all wanted ones."""
    versions = {n: Version(State.END) for n in range(10)} | {10: AVAILABLE}
    assert excess_ended(versions, frozenset({0, 10}), keep=3) == [6, 5, 4, 3, 2, 1]


_SETS = st.lists(
    st.tuples(st.frozensets(st.integers(1, 4)), st.frozensets(st.integers(1, 4))), min_size=1, max_size=6
)


@given(_SETS)
def test_actions_end_and_never_unload_the_last_available_version(
    looks: list[tuple[frozenset[int], frozenset[int]]],
) -> None:
    """For any wanted and failing versions the actions end, and a last available version is never unloaded."""
    versions: dict[int, Version] = {}
    for wanted, broken in looks:
        versions = clear_failures(versions, wanted)
        for _ in range(50):
            served = {n for n, v in versions.items() if v.state is State.AVAILABLE}
            idle = frozenset(n for n, v in versions.items() if v.state is State.UNLOADING)
            step = next_action(versions, wanted, idle, 0.0)
            if step is None:
                break
            act, number = step
            if act is Action.LOAD and number not in broken:
                versions[number] = AVAILABLE
            elif act is Action.LOAD:
                tried = start_attempt(versions.get(number))
                versions[number] = after_failure(tried, max_retries=0, interval_s=1.0, now_s=0.0)
            elif act is Action.UNLOAD:
                assert not wanted or served - {number}
                versions[number] = Version(State.UNLOADING)
            else:
                versions[number] = Version(State.END)
        else:
            pytest.fail(f"the actions do not end: {versions} for {wanted}")
        served = {n for n, v in versions.items() if v.state is State.AVAILABLE}
        good = {n for n in wanted if not versions[n].failed}
        assert good == served & wanted
        if good or not wanted:
            assert served == good
