"""Decide the next action of a deployment: a pure function without await, I/O or clock.

The deployer observes, calls `reconcile`, performs the action, and repeats until the action is final. Every
decision depends on what is on disk, on the model server and in the traffic split, so a node that was killed
anywhere continues from what it finds. `Attempt` holds only what cannot be observed.

                         stage all                        stage shadow or canary
    not here       Fetch (or Restore)               Fetch → StageCanary
    here           EndCanary → Activate             ServeBoth
    loaded         SmokeTest                        SmokeTest
    proven         Record → EndCanary → Prune       StartSplit
    unusable       Rollback                         RejectCanary
    torn           Displace (or Fetch)              RejectCanary
"""

from edge.models.actions import (
    Action,
    Activate,
    Displace,
    EndCanary,
    Fail,
    Fetch,
    FollowPlan,
    ForgetLoads,
    Nothing,
    PauseSplit,
    Prune,
    Record,
    Refuse,
    RejectCanary,
    Restore,
    Revert,
    Rollback,
    ServeBoth,
    ServeNewest,
    SmokeTest,
    StageCanary,
    StartSplit,
    StopSplit,
    Wait,
    WaitForRescan,
)
from edge.models.observation import Folder, Observation
from edge.serving.traffic_split import CanaryPlan, TrafficSplit
from schemas.messages import Release, ServedModel

LOADS = 3
"""Loads of a version after which the version, not the model server, is at fault for the server's exits."""

STABLE_AFTER_S = 3600.0
"""A challenger that stays loaded for longer is not at fault for earlier exits, in seconds."""

VERSIONS_KEPT = 2
"""Versions kept on disk: the one in service, and the one that a rollback returns to."""


def reconcile(seen: Observation) -> Action:
    """Return the next action towards the desired release."""
    if seen.folder is None:
        return _record_only(seen)
    in_place = seen.release.stage == "all" and seen.folder.newest == seen.release.version
    # Else a rollback could return to a version that has no verdict and would fail.
    if seen.folder.unproven - ({seen.bundle} if in_place else set()):
        return Revert()
    if seen.attempt.invalid is not None:
        return Fail(seen.attempt.invalid)
    if in_place and seen.folder.damage is not None:
        return _mend(seen, seen.folder, seen.folder.damage)
    if seen.release.stage == "all":
        return _serve_all(seen, seen.folder)
    return _serve_canary(seen, seen.folder)


def _record_only(seen: Observation) -> Action:
    """Record a release without `models_dir`: it only gives the class names of a version placed by others."""
    if seen.release.stage != "all":
        return Refuse(
            f"cannot serve {seen.model} as {seen.release.stage}: models_dir is not configured; set it to the "
            "folder that the model server watches"
        )
    return Nothing() if seen.recorded == seen.release else Record()


# stage all


def _serve_all(seen: Observation, folder: Folder) -> Action:
    version, serving = seen.release.version, seen.server.in_service
    in_place = folder.newest == version
    if in_place and (seen.attempt.activated or seen.bundle in folder.unproven):
        return _prove(seen, folder)
    # Unknown and away is not a reason to wait: it may be an earlier, broken bundle of this number.
    if in_place and seen.known and (serving is None or serving.state == "absent"):
        return _await_server(seen, folder)
    if in_place and serving is not None and serving.version == version:
        if seen.recorded is not None and not seen.known:
            return Fail(
                f"{seen.model} is in service with sha256 {seen.recorded.sha256}, not with the released "
                f"{seen.release.sha256}; release the new bundle under a new version"
            )
        if folder.mismatch is not None:
            return Fail(folder.mismatch)
        return _prove(seen, folder)
    return _replace(seen, folder)


def _await_server(seen: Observation, folder: Folder) -> Action:
    """Wait for a version that is in place; without a manifest fetch it again, since it may be torn."""
    if not folder.verifiable:
        return _replace(seen, folder)  # it stays until then
    serving = seen.server.in_service
    reason = "no status" if serving is None else serving.reason
    return Wait(f"{seen.model} is in place, but the model server does not serve it: {reason}")


def _mend(seen: Observation, folder: Folder, damage: str) -> Action:
    """Fetch a version again whose files are damaged."""
    serving = seen.server.in_service
    # Loaded before its files were damaged, it still answers. Otherwise no server can start with it.
    loaded = _is_available(serving) and serving is not None and serving.version == seen.release.version
    return _replace(seen, folder) if loaded else Displace(damage)


def _replace(seen: Observation, folder: Folder) -> Action:
    """Bring another version into service, up to its activation."""
    version, split = seen.release.version, seen.split
    in_canary = seen.known and version in folder.canary and folder.damage is None
    # A ready challenger keeps answering all the way: no request waits for a load.
    promote = in_canary and split.ready and split.challenger == version
    if not promote and split.plan is not None:
        return StopSplit()
    if not (seen.attempt.fetched and folder.fetched):
        return Restore() if in_canary else Fetch()
    if not promote and _has_canary(seen, folder):
        return EndCanary()
    if seen.rescan_in_s > 0:
        return WaitForRescan(seen.rescan_in_s)
    return Activate(promote)


def _prove(seen: Observation, folder: Folder) -> Action:  # noqa: PLR0911  # an ordered list of decisions
    """Accept a version that is in place, or roll it back."""
    attempt, recorded = seen.attempt, seen.recorded
    if attempt.activated and folder.canary and not attempt.reloaded:
        return ServeNewest()
    marked = seen.bundle in folder.unproven
    # A version placed by others has no mark. A record proves it only if its stage is all: a canary is
    # recorded before its test. During a canary the version in place is the champion, which is in service.
    unproven = marked or ((recorded is None or recorded.stage != "all") and not _has_canary(seen, folder))
    if not attempt.tested and (attempt.activated or unproven):
        if attempt.losses >= LOADS:
            return Rollback(
                f"{seen.model} failed its smoke test: the model server went away {LOADS} times: "
                f"{attempt.problem}"
            )
        return SmokeTest(alone=True)
    if attempt.problem is not None:
        return Rollback(f"{seen.model} failed its smoke test: {attempt.problem}")
    if recorded != seen.release or marked:
        return Record()
    if _has_canary(seen, folder):  # after Record, else the champion would be tested as a new version
        return EndCanary()
    older = [version for version in folder.versions if version <= seen.release.version]
    surplus = folder.leftovers or len(older) > VERSIONS_KEPT
    return Prune() if surplus and not attempt.pruned else Nothing()


def _has_canary(seen: Observation, folder: Folder) -> bool:
    """Return True if anything of a canary is left: its folder, a plan or a pinned version."""
    return bool(folder.canary) or seen.split != TrafficSplit()


# stage shadow or canary


def canary_plan(release: Release) -> CanaryPlan:
    """Return what a release of stage shadow or canary asks for. It has a baseline."""
    assert release.baseline is not None
    return CanaryPlan(release.stage, release.share, release.baseline, release.version, release.released_at_ms)


def _serve_canary(seen: Observation, folder: Folder) -> Action:
    release, split = seen.release, seen.split
    if release.baseline is None:
        return Refuse(f"release of {seen.model} as {release.stage} names no baseline version")
    plan = canary_plan(release)
    staged = seen.known and folder.canary == {plan.champion, plan.challenger}
    running = (
        staged
        and split.plan is not None
        and (split.plan.champion, split.plan.challenger) == (plan.champion, plan.challenger)
    )
    if running and split.ready:
        # The status must not report a canary that is not served, however long the server is away.
        return _keep_canary(seen, plan) if _is_available(seen.server.challenger) else PauseSplit()
    if not running and (folder.newest != plan.champion or plan.challenger == folder.newest):
        return Refuse(
            f"cannot evaluate version {plan.challenger} against version {plan.champion}: "
            f"version {folder.newest} is in service"
        )
    # Before any verdict on the challenger: the silence of a server is no evidence against it.
    if not _is_available(seen.server.champion):
        return Wait(f"version {plan.champion} is not served: {_why(seen.server.champion)}")
    if folder.canary and not staged:
        return EndCanary()
    return _load_challenger(seen, plan, folder, staged=staged)


def _keep_canary(seen: Observation, plan: CanaryPlan) -> Action:
    """Keep a canary that runs as it is, at the stage and share of the release."""
    if seen.split.plan != plan:
        return FollowPlan()
    if seen.recorded != seen.release:
        return Record()
    if seen.loads and seen.ready_for_s > STABLE_AFTER_S:
        return ForgetLoads()
    return Nothing()


def _load_challenger(  # noqa: PLR0911  # an ordered list of decisions
    seen: Observation, plan: CanaryPlan, folder: Folder, *, staged: bool
) -> Action:
    """Load the challenger in addition to the champion, or reject it."""
    attempt, challenger = seen.attempt, seen.server.challenger
    untested = attempt.served_both and not attempt.tested
    lost = challenger is not None and challenger.state == "absent"
    verdict = f"failed as the challenger of version {plan.champion}"
    # Checked before the download, too. Right after ServeBoth the server may not have started to load yet.
    if lost and not untested and seen.loads >= LOADS:
        return RejectCanary(f"{seen.model} {verdict}: the model server lost it after {LOADS} loads")
    if not staged:
        if not (attempt.fetched and folder.fetched):
            return Fetch()
        return WaitForRescan(seen.rescan_in_s) if seen.rescan_in_s > 0 else StageCanary()
    if seen.recorded != seen.release:
        return Record()
    if untested:
        return SmokeTest(alone=False)
    if attempt.problem is not None:
        return RejectCanary(f"{seen.model} {verdict}: {attempt.problem}")
    if attempt.tested and _is_available(challenger):
        return StartSplit()
    return ServeBoth(count_load=lost)


def _is_available(model: ServedModel | None) -> bool:
    return model is not None and model.state == "available"


def _why(model: ServedModel | None) -> str:
    return "no status" if model is None else model.reason or model.state
