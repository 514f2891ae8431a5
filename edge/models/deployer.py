"""Bring released versions into service and report what is served.

The loop of a controller: observe, `reconcile`, perform, until there is nothing to do (guarantee G6).
"""

import asyncio
import time
from pathlib import Path

import structlog
from msgspec import structs

from bus.backoff import backoff
from bus.mqtt.client import Bus
from edge.config import EdgeConfig
from edge.models import version_dirs
from edge.models.actions import Final, Nothing, Refuse, Undo, Wait
from edge.models.actuator import Actuator
from edge.models.observation import Attempt
from edge.models.reconcile import reconcile
from edge.models.release_records import ReleaseRecords
from edge.models.releases.releases import Releases
from edge.models.transfer.mirror_client import SiteMirror
from edge.serving.client import Predictor
from edge.serving.traffic_router import TrafficRouter
from edge.serving.traffic_split import TrafficSplit
from schemas.errors import TransientError
from schemas.events import EventName
from schemas.groups.heads import GroupHead
from schemas.messages import CanaryReport, Release, ServedModel

log = structlog.get_logger()

_CHECK_S = 2.0
_CANARY_REPORT_S = 5.0
_LONGEST_RETRY_S = 60.0
_MOST_STEPS = 64
_DELAYED_PART = "release"


class Deployer:
    """Deploys releases on one edge node.

    Args:
        config: Names and folders. Without `models_dir` something else places the models, and a release only
            gives their class names.
        bus: Connected by its own `run`; make this before that.
        predictor: The model server.
        router: Routes the photos.

    Attributes:
        publish_event: Publishes an event about the model.
    """

    def __init__(self, config: EdgeConfig, bus: Bus, predictor: Predictor, router: TrafficRouter) -> None:
        self._bus = bus
        self._predictor = predictor
        self._router = router
        # Absolute: the path is sent to the model server, which is another process.
        self._base = None if config.models_dir is None else Path(config.models_dir).absolute() / config.model
        self._classes = config.classes
        self._records = ReleaseRecords(Path(config.state_dir) / "releases", config.model, self._base)
        self._releases = Releases(config, bus, self._records)
        mirror = None if config.mirror is None else SiteMirror(config.mirror, config.broker.tls)
        self._actuator = Actuator(self._base, self._records, predictor, router, bus.counters, mirror=mirror)
        self.publish_event = self._releases.publish_event
        self._actuator.abandoned = self._releases.has_newer
        self._served: ServedModel | None = None
        self._expected: int | None = None
        self._reported: CanaryReport | None = None
        self._reported_at = 0.0

    def class_names(self, version: int) -> tuple[str, ...] | None:
        """Return the classes of a version in the order of its outputs.

        From its release, else from its assets, else from the configuration.
        """
        return self._records.class_names(version) or self._classes

    def temperature(self, version: int) -> float | None:
        """Return what divides the logits inside a version; None without a release of it."""
        return self._records.temperature(version)

    def group_head(self, version: int, group: str) -> GroupHead | None:
        """Return the head of a group in a version; None if its shared head answers."""
        heads = self._records.heads(version)
        return None if heads is None else heads.of(group)

    def load(self) -> None:
        """Read what earlier runs left; call once, before the first photo and before `run`. Blocking.

        Raises:
            ConfigError: The release key cannot be used.
        """
        self._releases.load()
        if self._base is not None and version_dirs.canary_versions(self._base):
            # The server may still serve the challenger as its newest version; the champion answers until the
            # retained release arrives.
            self._router.apply(TrafficSplit(pinned=version_dirs.newest(self._base)))

    async def run(self) -> None:
        """Deploy releases and report what is served, until cancelled.

        Safe to cancel: the next run continues from the files on disk when the retained release arrives.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._releases.run(), name="models.receive")
            tasks.create_task(self._deploy_all(), name="models.deploy")
            tasks.create_task(self._report_all(), name="models.report")

    async def _deploy_all(self) -> None:
        release = await self._torn_release()
        while True:
            release = release or await self._releases.next(_CHECK_S)
            if release is None:
                await self._keep_canary()
            else:
                release = await self._deploy(release)

    async def _deploy(self, release: Release) -> Release | None:
        """Deploy a release; returns a newer one that arrived while this one had to wait."""
        attempt = Attempt()
        started = time.monotonic()
        delayed: str | None = None
        for delay_s in backoff(cap_s=_LONGEST_RETRY_S):
            outcome, attempt = await self._converge(release, attempt)
            if not isinstance(outcome, Wait):
                await self._bus.report_recovered(_DELAYED_PART)
                if self._base is None:
                    await self._expect_placed(release)
                await self._finish(release, outcome, attempt, time.monotonic() - started)
                break
            if outcome.reason != delayed and not self._releases.has_newer():
                delayed = outcome.reason
                await self._publish_delay(release, delayed)
            attempt = attempt.after_wait()
            # The only point where a newer release takes over: an activated version gets its verdict first.
            if (newer := await self._releases.next(delay_s)) is not None:
                return newer
        return None

    async def _publish_delay(self, release: Release, reason: str) -> None:
        """Report why a release cannot be deployed now: in log, Status and an event."""
        log.warning("release.delayed", version=release.version, reason=reason)
        await self._bus.report_degraded(_DELAYED_PART, f"version {release.version} is delayed: {reason}")
        await self._releases.publish_event(EventName.MODEL_DELAYED, reason=reason, version=release.version)

    async def _expect_placed(self, release: Release) -> None:
        """Without `models_dir`, report until somebody else has placed the released version."""
        served = await self._predictor.model_status(None)
        if release.stage == "all" and served.version != release.version:
            self._expected = release.version
            await self._publish_delay(
                release,
                "it is not served, and models_dir is not configured: set it to the folder that the model "
                "server watches, or place the version there",
            )

    async def _torn_release(self) -> Release | None:
        """Return the release of the newest version if a power loss tore its files, to deploy it again."""
        torn = await asyncio.to_thread(self._actuator.torn_version)
        recorded = None if torn is None else await asyncio.to_thread(self._records.recorded, torn)
        # A champion was recorded with stage all; a torn challenger is not in the folder that is looked at.
        return None if recorded is None or recorded.stage != "all" else recorded

    async def _keep_canary(self) -> None:
        """Load the challenger again after a restart of the model server; reject it if it caused several."""
        plan = self._router.split.plan
        release = None if plan is None else await asyncio.to_thread(self._records.recorded, plan.challenger)
        if release is None:
            return
        outcome, _ = await self._converge(release, Attempt())
        if isinstance(outcome, Wait):
            log.warning("release.delayed", version=release.version, reason=outcome.reason)
        elif not isinstance(outcome, Nothing):
            self._router.apply(self._router.split.without_challenger())  # else the next check fails again
            await self._publish_failure(release, outcome)

    async def _converge(self, release: Release, attempt: Attempt) -> tuple[Final, Attempt]:
        """Act until an action is final; returns that and the attempt. Safe to cancel."""
        try:
            for _ in range(_MOST_STEPS):
                action = reconcile(await self._actuator.observe(release, attempt))
                if isinstance(action, Final):
                    if isinstance(action, Undo):
                        await self._actuator.perform(action, release, attempt)
                    return action, attempt
                log.debug("release.step", version=release.version, action=action)
                attempt = await self._actuator.perform(action, release, attempt)
        except TransientError as error:
            return Wait(str(error)), attempt
        except OSError as error:
            return Wait(f"cannot write the models or their records: {error}"), attempt
        return Wait(f"no end after {_MOST_STEPS} actions, the last one {action}"), attempt

    async def _finish(self, release: Release, outcome: Final, attempt: Attempt, took_s: float) -> None:
        """Report the outcome of a deployment in log, Status and events."""
        version = release.version
        if not isinstance(outcome, Nothing):
            await self._publish_failure(release, outcome)
        elif release.stage != "all":
            log.info("model.tried", version=version, stage=release.stage, share=release.share)
            await self._releases.publish_event(
                EventName.MODEL_TRIED, version=version, stage=release.stage, share=release.share
            )
        elif attempt.deployed:  # not for a release that was in service already, as after a restart
            took_s = round(took_s, 2)
            log.info("model.available", version=version, took_s=took_s)
            await self._report()  # the Status must have it before the event does
            await self._releases.publish_event(EventName.MODEL_AVAILABLE, version=version, took_s=took_s)
        await self._report()

    async def _publish_failure(self, release: Release, outcome: Final) -> None:
        assert not isinstance(outcome, Nothing)
        event = EventName.MODEL_REFUSED if isinstance(outcome, Refuse) else EventName.MODEL_FAILED
        log.error(str(event), version=release.version, reason=outcome.reason)
        await self._releases.publish_event(event, reason=outcome.reason, version=release.version)

    async def _with_digest(self, served: ServedModel) -> ServedModel:
        """Add the digest of the released bundle: two bundles may have the same number."""
        if served.version is None:
            return served
        release = await asyncio.to_thread(self._records.recorded, served.version)
        return served if release is None else structs.replace(served, sha256=release.sha256)

    async def _report_all(self) -> None:
        while True:
            await self._report()
            await asyncio.sleep(_CHECK_S)

    async def _report(self) -> None:
        """Publish what is in service if it changed, and at most every 5 s the counts of a canary."""
        # The version that answers, not the newest: in a canary that is the challenger.
        served = await self._with_digest(await self._predictor.model_status(self._router.split.pinned))
        if served != self._served:
            self._served = served
            log.info("model.served", version=served.version, state=served.state, reason=served.reason)
            await self._bus.report(model=served)
        if self._expected is not None and served.version == self._expected:
            self._expected = None
            await self._bus.report_recovered(_DELAYED_PART)
        self._router.available = served.version if served.state == "available" else None
        if served.state == "available" and served.version is not None:
            self._router.set_serving(served.version)
        self._bus.report_later(serving=self._router.serving_report())
        report, before = self._router.canary_report(), self._reported
        # A canary that starts, ends or changes its stage is published at once.
        other_stage = (report and report.since_ms) != (before and before.since_ms)
        if other_stage or (report != before and time.monotonic() - self._reported_at > _CANARY_REPORT_S):
            self._reported, self._reported_at = report, time.monotonic()
            await self._bus.report(canary=report)
