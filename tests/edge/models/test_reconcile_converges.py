"""Repeated `reconcile` ends, in an in-memory model of folder, model server and traffic split.

In the model, bundles are good, do not load, answer nonsense, end the server or fail their digest. The edge is
killed and the model server restarted before any action; downloads fail for a while.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.models import actions as act
from edge.models.actions import Action, Final, Wait
from edge.models.observation import Attempt, Folder, Observation, Server
from edge.models.reconcile import VERSIONS_KEPT, canary_plan, reconcile
from edge.serving.traffic_split import TrafficSplit
from schemas.errors import TransientError
from schemas.messages import Release, ServedModel

GOOD, BROKEN, FLAT, FATAL, FORGED = "good", "broken", "flat", "fatal", "forged"
MOST_ACTIONS = 40  # for one release without interruptions; the longest path has 12
MOST_WAITS = 20


class KilledError(Exception):
    """The edge was killed before an action."""


class EndlessWaitError(Exception):
    """A deployment kept waiting for something that will not happen."""


@dataclass
class World:
    """A models folder, a model server and a traffic split. A bundle is its sha256, `<kind>-<version>`."""

    versions: dict[int, str]
    canary: dict[int, str] = field(default_factory=dict)
    aside: dict[int, str] = field(default_factory=dict)
    incoming: dict[int, str] = field(default_factory=dict)
    unproven: set[int] = field(default_factory=set)
    records: dict[int, Release] = field(default_factory=dict)
    loads: dict[int, tuple[int, int]] = field(default_factory=dict)
    split: TrafficSplit = field(default_factory=TrafficSplit)
    both: bool = False
    loaded: dict[int, str] = field(default_factory=dict)
    failing_downloads: int = 0

    def __post_init__(self) -> None:
        self.restart_server()

    # the model server

    def rescan(self) -> None:
        """Load what the server is to serve; the previous version stays until the newest is loaded."""
        if self.both:
            self.loaded = {number: bundle for number, bundle in self.canary.items() if kind(bundle) != BROKEN}
        elif self.versions and kind(self.versions[max(self.versions)]) != BROKEN:
            newest = max(self.versions)
            self.loaded = {newest: self.versions[newest]}

    def restart_server(self) -> None:
        self.both, self.loaded = False, {}
        self.rescan()

    def restart_edge(self) -> None:
        self.split = TrafficSplit(pinned=max(self.versions)) if self.canary else TrafficSplit()

    def status(self, version: int | None) -> ServedModel:
        if version is None and self.loaded:
            version = max(self.loaded)
        if version not in self.loaded:
            return ServedModel(name="pets", version=version, state="absent", reason="not loaded")
        return ServedModel(name="pets", version=version, state="available")

    def answering(self) -> str | None:
        """Return the bundle that answers photos of devices outside of a canary."""
        return self.loaded.get(self.split.pinned or max(self.loaded, default=0))

    # observe and act, as the actuator does

    def observe(self, release: Release, attempt: Attempt) -> Observation:
        version = release.version
        self.rescan()
        return Observation(
            release=release,
            recorded=self.records.get(version),
            loads=self.count(release),
            folder=Folder(
                versions=frozenset(self.versions),
                canary=frozenset(self.canary),
                fetched=version in self.incoming,
                leftovers=bool(self.aside or self.incoming),
                unproven=frozenset((number, self.versions[number]) for number in self.unproven),
            ),
            server=Server(
                in_service=self.status(self.split.pinned),
                champion=self.status(release.baseline),
                challenger=self.status(version),
            ),
            split=self.split,
            attempt=attempt,
        )

    def perform(  # noqa: C901, PLR0911, PLR0912, PLR0915  # one case per action
        self, action: Action, release: Release, attempt: Attempt
    ) -> Attempt:
        version = release.version
        match action:
            case act.Fetch():
                self.incoming = {}
                if self.failing_downloads:
                    self.failing_downloads -= 1
                    raise TransientError("out of reach")
                if kind(release.sha256) == FORGED:
                    return replace(attempt, invalid="sha256 differs")
                self.incoming[version] = release.sha256
                return replace(attempt, fetched=True)
            case act.Restore():
                self.incoming[version] = self.canary[version]
                return replace(attempt, fetched=True)
            case act.Activate(promote):
                if promote:
                    assert self.split.challenger == version
                    self.split = TrafficSplit(pinned=version)
                else:
                    self.unproven = {version}
                self.versions[version] = self.incoming.pop(version)
                self.aside = {
                    number: self.versions.pop(number) for number in [*self.versions] if number > version
                }
                return replace(attempt, fetched=False, activated=True, deployed=True)
            case act.Revert():
                self.undo_activation(*self.unproven)
            case act.ServeNewest():
                self.both = False
                return replace(attempt, reloaded=True)
            case act.SmokeTest(alone):
                return self.smoke_test(version, attempt, alone=alone)
            case act.Record():
                self.records[version] = release
                if release.stage == "all":
                    self.unproven = set()
            case act.Prune():
                self.aside, self.incoming = {}, {}
                for number in sorted((one for one in self.versions if one <= version), reverse=True)[
                    VERSIONS_KEPT:
                ]:
                    del self.versions[number]
                return replace(attempt, pruned=True)
            case act.Rollback():
                self.undo_activation(version)
                self.canary, self.both, self.split = {}, False, TrafficSplit()
            case act.StageCanary():
                assert release.baseline is not None
                self.canary = {
                    release.baseline: self.versions[release.baseline],
                    version: self.incoming.pop(version),
                }
                self.records[version] = release
                return replace(attempt, fetched=False)
            case act.ServeBoth(count_load):
                self.split, self.both = TrafficSplit.preparing(canary_plan(release)), True
                self.loads[version] = release.released_at_ms, self.count(release) + count_load
                return replace(attempt, served_both=True, tested=False, problem=None)
            case act.StartSplit():
                self.split = TrafficSplit.preparing(canary_plan(release)).with_challenger(ready=True)
            case act.FollowPlan():
                self.split = self.split.follow(canary_plan(release))
            case act.PauseSplit():
                self.split = self.split.with_challenger(ready=False)
            case act.StopSplit():
                self.split = self.split.without_challenger()
            case act.EndCanary() | act.RejectCanary():
                self.canary, self.both, self.split = {}, False, TrafficSplit()
            case _:
                raise AssertionError(action)
        return attempt

    def smoke_test(self, version: int, attempt: Attempt, *, alone: bool) -> Attempt:
        self.rescan()
        bundle = self.loaded.get(version)
        if bundle is None and not alone and not self.both:
            raise TransientError("the server was restarted and has forgotten both")
        if bundle is None:
            return attempt.with_test("not loaded after 120 s")
        if kind(bundle) == FATAL:
            self.restart_server()
            if not alone:
                raise TransientError("the server went away")
            return attempt.with_loss("gone")
        return attempt.with_test(None if kind(bundle) == GOOD else "wrong shape")

    def count(self, release: Release) -> int:
        released_at_ms, loads = self.loads.get(release.version, (0, 0))
        return loads if released_at_ms == release.released_at_ms else 0

    def undo_activation(self, *versions: int) -> None:
        self.versions |= self.aside
        for version in versions:
            del self.versions[version]
        self.aside, self.unproven = {}, set()


def kind(bundle: str) -> str:
    return bundle.partition("-")[0]


def deploy(world: World, release: Release, interruptions: Iterator[str]) -> Final:
    """Run the deployer's loop; raises KilledError where the edge is killed."""
    attempt = Attempt()
    for _ in range(MOST_WAITS):
        outcome: Action = Wait("nothing done")
        try:
            for _ in range(MOST_ACTIONS):
                interruption = next(interruptions, "")
                if interruption == "kill":
                    world.restart_edge()
                    raise KilledError
                if interruption == "restart":
                    world.restart_server()
                outcome = reconcile(world.observe(release, attempt))
                if isinstance(outcome, Final) and not isinstance(outcome, act.Undo):
                    break
                attempt = world.perform(outcome, release, attempt)
                if isinstance(outcome, act.Undo):
                    break
            else:
                raise AssertionError(f"no end: {outcome}")
        except TransientError as error:
            outcome = Wait(str(error))
        if isinstance(outcome, Final) and not isinstance(outcome, Wait):
            world.rescan()
            return outcome
        attempt = attempt.after_wait()
    raise EndlessWaitError(outcome)


def check(world: World, release: Release, outcome: Final, before: str | None) -> None:
    """The release is served, or the version that answered before it."""
    if not isinstance(outcome, act.Nothing):
        assert world.answering() == before, outcome
        assert not world.split.ready or kind(world.canary[world.split.challenger or 0]) == GOOD, outcome
        return
    assert kind(release.sha256) == GOOD
    assert world.records[release.version] == release
    if release.stage == "all":
        assert world.answering() == release.sha256
        assert (world.canary, world.split, world.both) == ({}, TrafficSplit(), False)
        assert not world.aside
        assert len([one for one in world.versions if one <= release.version]) <= VERSIONS_KEPT
    else:
        plan = canary_plan(release)
        assert world.split == TrafficSplit.preparing(plan).with_challenger(ready=True)
        assert world.loaded == {plan.champion: world.versions[plan.champion], plan.challenger: release.sha256}
        assert world.answering() == before


def release_of(version: int, bundle: str, stage: str, beside: int | None, released_at_ms: int) -> Release:
    return Release(
        node="edge-1",
        model="pets",
        version=version,
        url="file:///x",
        sha256=f"{bundle}-{version}",
        size_bytes=1,
        classes=["cat", "dog"],
        stage=stage,  # type: ignore[arg-type]  # one of three words
        baseline=None if stage == "all" else beside,
        released_at_ms=released_at_ms,
    )


releases = st.builds(
    release_of,
    st.integers(1, 4),
    st.sampled_from([GOOD, GOOD, GOOD, BROKEN, FLAT, FATAL, FORGED]),
    st.sampled_from(["all", "all", "shadow", "canary"]),
    st.sampled_from([1, 1, 2, 3, None]),
    st.integers(1, 5),
)


interruptions = st.lists(st.sampled_from(["", "", "", "", "kill", "restart"]), max_size=16)


@settings(deadline=None, max_examples=400)
@given(history=st.lists(st.tuples(releases, interruptions, st.integers(0, 3)), min_size=1, max_size=5))
def test_g6_every_deployment_ends_with_a_proven_version_in_service(history):
    """After any history of releases, kills and restarts the desired or the previous version serves."""
    world = World(versions={1: "good-1"}, records={1: release_of(1, GOOD, "all", None, 0)})
    for release, moments, failing_downloads in history:
        world.failing_downloads = failing_downloads
        before = world.answering()
        left = iter(moments)
        while True:
            try:
                outcome = deploy(world, release, left)
            except KilledError:  # the retained release arrives again
                continue
            break
        check(world, release, outcome, before)


@settings(deadline=None, max_examples=200)
@given(
    release=releases,
    world=st.builds(
        World,
        versions=st.dictionaries(
            st.integers(1, 4), st.sampled_from(["good-0", "flat-0", "broken-0"]), min_size=1
        ),
        canary=st.dictionaries(st.integers(1, 4), st.sampled_from(["good-0", "flat-0"]), max_size=2),
        aside=st.dictionaries(st.integers(5, 6), st.just("good-0"), max_size=1),
        incoming=st.dictionaries(st.integers(1, 4), st.just("broken-0"), max_size=1),
        records=st.dictionaries(st.integers(1, 4), releases),
        loads=st.just({}),
        split=st.builds(TrafficSplit, pinned=st.none() | st.integers(1, 4)),
        both=st.booleans(),
        failing_downloads=st.integers(0, 3),
    ),
)
def test_every_state_has_an_end(release, world):
    """Also from states that only changes by hand lead to: it ends or keeps waiting, and never loops."""
    with suppress(EndlessWaitError):
        deploy(world, release, iter(()))
