"""Decide which versions of a model to serve and which action comes next. No I/O, no clock.

Source: TensorFlow Serving's file system source, availability-preserving policy and load retries; each
function documents its rule.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, IntEnum

_LARGEST = 2**63 - 1  # a version travels as int64


class State(IntEnum):
    """State of a version; the numbers are those of `ModelVersionStatus.State`."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True, slots=True)
class Latest:
    """Serve the `num_versions` highest versions (0 counts as 1)."""

    num_versions: int = 1


@dataclass(frozen=True, slots=True)
class All:
    """Serve every version that exists."""


@dataclass(frozen=True, slots=True)
class Specific:
    """Serve those of these versions that exist."""

    versions: frozenset[int]


Policy = Latest | All | Specific


@dataclass(frozen=True, slots=True)
class Version:
    """State of one version of a model.

    Args:
        state: LOADING lasts from the first attempt to the last, including the waits between them.
        attempts: number of attempts to load it.
        due_s: when the next attempt may start, on the caller's monotonic clock.
        failed: every attempt failed; not retried as long as the version is wanted.
    """

    state: State = State.START
    attempts: int = 0
    due_s: float = 0.0
    failed: bool = False


class Action(Enum):
    """An action that brings the loaded versions closer to the wanted ones."""

    LOAD = "load"
    ABANDON = "abandon"
    UNLOAD = "unload"
    CLOSE = "close"


def version_directories(names: Iterable[str]) -> dict[int, str]:
    """Return the version directories among directory names.

    Args:
        names: directory names in a model's base path.

    Returns:
        Version number to name. Only ASCII digits up to 2⁶³-1 count; of several names for one number
        ("1", "001") the last in alphabetical order is used.
    """
    found = {}
    for name in sorted(names):
        if name.isascii() and name.isdigit() and int(name) <= _LARGEST:
            found[int(name)] = name
    return found


def aspired_versions(present: Iterable[int], policy: Policy) -> frozenset[int]:
    """Return the versions to serve, of those present, by the model's policy."""
    match policy:
        case Latest(num_versions):
            return frozenset(sorted(present, reverse=True)[: max(num_versions, 1)])
        case All():
            return frozenset(present)
        case Specific(versions):
            return versions & frozenset(present)


def next_action(
    versions: Mapping[int, Version], wanted: frozenset[int], idle: frozenset[int], now_s: float
) -> tuple[Action, int] | None:
    """Return the next action for one model.

    An unwanted version is unloaded only when a wanted one is available, or none is wanted. So after a failed
    load the old version keeps serving.

    Args:
        versions: all known versions.
        wanted: versions to serve.
        idle: retired versions without requests.
        now_s: current time, on the clock of `Version.due_s`.

    Returns:
        The action and its version, or None if nothing is due.
    """
    # First of all free memory: the next load may need it.
    for number, version in versions.items():
        if version.state is State.UNLOADING and number in idle:
            return Action.CLOSE, number
    for number in sorted(wanted, reverse=True):
        if _should_load(versions.get(number), now_s):
            return Action.LOAD, number
    for number in sorted(versions.keys() - wanted):
        if versions[number].state is State.LOADING:
            return Action.ABANDON, number
        if versions[number].state is State.AVAILABLE and _has_replacement(versions, wanted):
            return Action.UNLOAD, number
    return None


def _should_load(version: Version | None, now_s: float) -> bool:
    if version is None or version.state is State.START:
        return True
    if version.state is State.LOADING:
        return version.due_s <= now_s
    # END without `failed`: it was unloaded, and is wanted again.
    return version.state is State.END and not version.failed


def _has_replacement(versions: Mapping[int, Version], wanted: frozenset[int]) -> bool:
    return not wanted or any(n in versions and versions[n].state is State.AVAILABLE for n in wanted)


def start_attempt(version: Version | None) -> Version:
    """Return the version with one more load attempt; a version that had ended starts at 1 again."""
    if version is None or version.state is not State.LOADING:
        return Version(State.LOADING, attempts=1)
    return replace(version, attempts=version.attempts + 1)


def after_failure(version: Version, *, max_retries: int, interval_s: float, now_s: float) -> Version:
    """Return the version after a failed attempt: due for another one, or failed.

    Args:
        version: the version while loading.
        max_retries: attempts after the first one.
        interval_s: seconds between attempts.
        now_s: current time.
    """
    if version.attempts > max_retries:
        return replace(version, state=State.END, failed=True)
    return replace(version, due_s=now_s + interval_s)


def clear_failures(versions: Mapping[int, Version], wanted: frozenset[int]) -> dict[int, Version]:
    """Clear `failed` of versions that are not wanted, so that they are loaded if they are wanted later."""
    return {
        number: version if number in wanted or not version.failed else replace(version, failed=False)
        for number, version in versions.items()
    }


def retry_due_s(versions: Mapping[int, Version], wanted: frozenset[int]) -> float | None:
    """Return when the next load attempt is due; None if there is none."""
    due = [v.due_s for n, v in versions.items() if n in wanted and v.state is State.LOADING]
    return min(due, default=None)


def excess_ended(versions: Mapping[int, Version], wanted: frozenset[int], keep: int) -> list[int]:
    """Return the ended versions to drop: all except wanted ones and the `keep` highest."""
    ended = [n for n, v in versions.items() if v.state is State.END and n not in wanted]
    return sorted(ended, reverse=True)[keep:]
