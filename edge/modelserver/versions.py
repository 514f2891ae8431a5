"""Which versions of a model to serve, and what to do next about it. Decisions only: no I/O, no clock.

Source: the file system source, the availability-preserving policy and the load retries of
TensorFlow Serving, described by the rules in each docstring here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, IntEnum

_LARGEST = 2**63 - 1  # a version travels as int64


class State(IntEnum):
    """Where a version is in its life. The numbers are those of `ModelVersionStatus.State`."""

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
    """Serve every version that is there."""


@dataclass(frozen=True, slots=True)
class Specific:
    """Serve these versions, as far as they are there."""

    versions: frozenset[int]


Policy = Latest | All | Specific


@dataclass(frozen=True, slots=True)
class Version:
    """What is known of one version of a model.

    Args:
        state: where it is in its life. LOADING lasts from the first attempt to the last.
        attempts: how often it was tried to load it.
        due_s: when the next attempt may start, on the caller's monotonic clock.
        failed: every attempt failed; it is not tried again while it stays wanted.
    """

    state: State = State.START
    attempts: int = 0
    due_s: float = 0.0
    failed: bool = False


class Act(Enum):
    """One step of bringing what is loaded in line with what is wanted."""

    LOAD = "load"
    GIVE_UP = "give up"
    UNLOAD = "unload"
    CLOSE = "close"


def numbered(names: Iterable[str]) -> dict[int, str]:
    """Find the version directories among directory names.

    Args:
        names: the names of the directories under a model's base path.

    Returns:
        Version number to name. Only names of ASCII digits up to 2⁶³-1 count; of several names for one
        number ("1", "001") the last in alphabetical order is taken.
    """
    found = {}
    for name in sorted(names):
        if name.isascii() and name.isdigit() and int(name) <= _LARGEST:
            found[int(name)] = name
    return found


def aspired(present: Iterable[int], policy: Policy) -> frozenset[int]:
    """Choose the versions to serve among those present, by the model's policy."""
    match policy:
        case Latest(num_versions):
            return frozenset(sorted(present, reverse=True)[: max(num_versions, 1)])
        case All():
            return frozenset(present)
        case Specific(versions):
            return versions & frozenset(present)


def next_act(
    versions: Mapping[int, Version], wanted: frozenset[int], idle: frozenset[int], now_s: float
) -> tuple[Act, int] | None:
    """Choose the next step for one model.

    A wanted version is loaded before an unwanted one is unloaded, and an unwanted one goes only once a
    wanted one serves in its place, or none is wanted at all. So a failed load leaves the old version in
    place.

    Args:
        versions: every version known.
        wanted: the versions to serve.
        idle: versions whose last request has left.
        now_s: the present, on the clock of `Version.due_s`.

    Returns:
        The step and its version, or None where nothing is to be done now.
    """
    for number, version in versions.items():
        if version.state is State.UNLOADING and number in idle:
            return Act.CLOSE, number
    for number in sorted(wanted, reverse=True):
        if _to_load(versions.get(number), now_s):
            return Act.LOAD, number
    for number in sorted(versions.keys() - wanted):
        if versions[number].state is State.LOADING:
            return Act.GIVE_UP, number
        if versions[number].state is State.AVAILABLE and _replaced(versions, wanted):
            return Act.UNLOAD, number
    return None


def _to_load(version: Version | None, now_s: float) -> bool:
    if version is None or version.state is State.START:
        return True
    if version.state is State.LOADING:
        return version.due_s <= now_s
    return version.state is State.END and not version.failed


def _replaced(versions: Mapping[int, Version], wanted: frozenset[int]) -> bool:
    return not wanted or any(n in versions and versions[n].state is State.AVAILABLE for n in wanted)


def begun(version: Version | None) -> Version:
    """Count the start of an attempt to load; a version that had ended starts afresh."""
    if version is None or version.state is not State.LOADING:
        return Version(State.LOADING, attempts=1)
    return replace(version, attempts=version.attempts + 1)


def after_failure(version: Version, *, max_retries: int, interval_s: float, now_s: float) -> Version:
    """Say what a failed attempt makes of a version: another attempt after a wait, or the end.

    Args:
        version: the version as it was while loading.
        max_retries: attempts after the first one.
        interval_s: wait between attempts, in seconds.
        now_s: the present.
    """
    if version.attempts > max_retries:
        return replace(version, state=State.END, failed=True)
    return replace(version, due_s=now_s + interval_s)


def forgiven(versions: Mapping[int, Version], wanted: frozenset[int]) -> dict[int, Version]:
    """Forget the failure of versions no longer wanted: when they come back they are tried again."""
    return {
        number: version if number in wanted or not version.failed else replace(version, failed=False)
        for number, version in versions.items()
    }


def retry_due_s(versions: Mapping[int, Version], wanted: frozenset[int]) -> float | None:
    """Say when the earliest further attempt to load is due; None where none is."""
    due = [v.due_s for n, v in versions.items() if n in wanted and v.state is State.LOADING]
    return min(due, default=None)


def surplus(versions: Mapping[int, Version], wanted: frozenset[int], keep: int) -> list[int]:
    """Choose the ended versions to forget: all but the `keep` highest, none that is wanted."""
    ended = [n for n, v in versions.items() if v.state is State.END and n not in wanted]
    return sorted(ended, reverse=True)[keep:]
