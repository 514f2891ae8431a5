"""Run a canary: serve two versions side by side from the canary folder, with HandleReloadConfigRequest.

A model server that restarts forgets this and serves the champion alone, until it is configured again.
"""

import asyncio
import math
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import assert_never

import structlog

from edge.models import actions, smoke_test, version_dirs
from edge.models.observation import Attempt
from edge.models.reconcile import canary_plan
from edge.models.release_records import ReleaseRecords
from edge.serving.client import ModelUnavailableError, Predictor
from edge.serving.traffic_router import TrafficRouter
from edge.serving.traffic_split import TrafficSplit
from schemas.messages import Release

log = structlog.get_logger()

STABLE = "stable"
"""Label of the champion on the model server, for other clients of it."""
CANARY = "canary"
"""Label of the challenger."""

_POLL_S = 0.1


class Canary:
    """Performs the actions of a canary.

    Args:
        base: The model's version directories.
        records: Releases installed on this node.
        predictor: The model server.
        router: Routes the photos.
    """

    def __init__(
        self, base: Path, records: ReleaseRecords, predictor: Predictor, router: TrafficRouter
    ) -> None:
        self._base = base
        self._records = records
        self._predictor = predictor
        self._router = router
        self._ready_at = math.inf

    def ready_for_s(self) -> float:
        """Return the seconds since the challenger became ready; negative infinity if it never did."""
        return time.monotonic() - self._ready_at

    async def perform(  # one case per action
        self, action: actions.CanaryStep, release: Release, attempt: Attempt
    ) -> Attempt:
        """Perform an action and return the attempt after it.

        Raises:
            TransientError, OSError: Not possible now.
        """
        split = self._router.split
        match action:
            case actions.StageCanary():
                await asyncio.to_thread(self._stage, release)
                return replace(attempt, fetched=False)
            case actions.ServeBoth(count_load):
                await self._serve_both(release, count_load=count_load)
                return replace(attempt, served_both=True, tested=False, problem=None)
            case actions.StartSplit():
                await self._start_split(release)
            case actions.FollowPlan():
                self._router.apply(split.follow(canary_plan(release)))
            case actions.PauseSplit():
                self._router.apply(split.with_challenger(ready=False))
            case actions.StopSplit():
                self._router.apply(split.without_challenger())
            case actions.ForgetLoads():
                await asyncio.to_thread(self._records.forget_loads, release.version)
            case actions.EndCanary():
                await self._end()
            case actions.RejectCanary():
                with suppress(ModelUnavailableError):  # the champion answers; the next deployment tidies up
                    await self._end()
            case _:
                assert_never(action)
        return attempt

    def _stage(self, release: Release) -> None:
        plan = canary_plan(release)
        version_dirs.stage_canary(plan.champion, plan.challenger, self._base)
        self._records.record(release)

    async def _serve_both(self, release: Release, *, count_load: bool) -> None:
        plan = canary_plan(release)
        log.info("canary.loading", version=plan.challenger, baseline=plan.champion)
        self._router.apply(TrafficSplit.preparing(plan))
        folder = version_dirs.canary_folder(self._base)
        await self._predictor.reload_config(folder, (plan.champion, plan.challenger))
        if count_load:  # after the call, so that a server that is away does not count against the version
            await asyncio.to_thread(self._records.count_load, release)

    async def _start_split(self, release: Release) -> None:
        plan = canary_plan(release)
        folder = version_dirs.canary_folder(self._base)
        # The server accepts labels only for versions that are available, so they follow the smoke test.
        labels = {STABLE: plan.champion, CANARY: plan.challenger}
        await self._predictor.reload_config(folder, (plan.champion, plan.challenger), labels)
        self._router.apply(TrafficSplit.preparing(plan).with_challenger(ready=True))
        self._ready_at = time.monotonic()

    async def _end(self) -> None:
        """Serve the newest version alone, then remove the canary folder.

        Raises:
            ModelUnavailableError: Not possible now; the pinned version answers everything.
        """
        self._router.apply(self._router.split.without_challenger())
        if not version_dirs.canary_folder(self._base).is_dir():
            self._router.apply(TrafficSplit())
            return
        newest = version_dirs.newest(self._base)
        await self._predictor.reload_config(self._base)
        try:
            async with asyncio.timeout(smoke_test.LOAD_TIMEOUT_S):
                while (await self._predictor.model_status()).version != newest:  # noqa: ASYNC110  # it has to be polled
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise ModelUnavailableError(
                f"the model server does not serve version {newest} alone after {smoke_test.LOAD_TIMEOUT_S} s"
            ) from None
        # Unpinned and removed only now: until then the server may still load and answer from the folder.
        self._router.apply(TrafficSplit())
        await asyncio.to_thread(version_dirs.remove_canary, self._base)
