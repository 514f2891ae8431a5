"""A version served beside the one in service, by the model server's own means (DESIGN, section 7).

The server is told to serve both from a folder of their own, by number; it has them under the labels `stable`
and `canary` for others who ask. One that is started anew serves the version in service, until told again.
"""

import asyncio
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import structlog

from edge.config import EdgeConfig
from edge.models import version_dirs
from edge.models.bundle import BundleError
from edge.models.releases import Releases
from edge.models.smoke_test import LOADS, try_out_once
from edge.serving.client import ModelUnavailableError, Predictor
from edge.serving.traffic_split import Plan, Trial
from schemas.errors import PermanentError
from schemas.messages import Release

log = structlog.get_logger()

STABLE = "stable"
CANARY = "canary"
_POLL_S = 0.1
_STEADY_S = 3600.0


class Beside:
    """Brings versions on trial and ends it.

    Args:
        config: The time that a version has to load.
        base: The model's versions.
        releases: Taken so far.
        predictor: The model server; its list of models is this node's.
        trial: Told who answers.
    """

    def __init__(
        self, config: EdgeConfig, base: Path, releases: Releases, predictor: Predictor, trial: Trial
    ) -> None:
        self._load_timeout_s = config.load_timeout_s
        self._base = base
        self._releases = releases
        self._predictor = predictor
        self._trial = trial
        self._ready_at = 0.0

    async def has(self, release: Release) -> bool:
        """Tell whether this bundle lies in the trial's folder."""
        there = release.version in await asyncio.to_thread(version_dirs.on_trial, self._base)
        return there and await asyncio.to_thread(self._releases.is_known, release)

    def promotes(self, release: Release) -> bool:
        """Tell whether a release is for the version that is served on trial, and from now on for all."""
        return self._trial.ready and self._trial.challenger == release.version

    async def goes_on(self, release: Release) -> bool:
        """Go on with the present trial as a release says; tells whether it is for that one."""
        plan, present = _plan(release), self._trial.plan
        same = present and (present.champion, present.challenger) == (plan.champion, plan.challenger)
        if not (same and self._trial.ready and await self.has(release)):
            return False
        self._trial.change(plan)
        return True

    async def begin(self, release: Release) -> None:
        """Serve a release beside the version in service.

        Raises:
            PermanentError: That is another version than the release says.
            BundleError: It must not be served; only the version in service is.
            TransientError, OSError: Not now.
        """
        plan = _plan(release)
        await self._check_champion(plan)
        wanted = {plan.champion, plan.challenger}
        there = await asyncio.to_thread(version_dirs.on_trial, self._base)
        if there and not (there == wanted and await self.has(release)):
            await self.end()
            there = set()
        if not there:
            await self._lost(release, plan)  # before the work of fetching it
            await asyncio.to_thread(version_dirs.bring, release, self._base)
            await asyncio.to_thread(version_dirs.lay_out, plan.champion, plan.challenger, self._base)
        await asyncio.to_thread(self._releases.record, release)
        self._trial.begin(plan)
        await self._serve_both(release, plan)

    async def restore(self) -> None:
        """See to it that the version on trial is served, also by a model server that was started anew.

        Raises:
            BundleError: It is not to be served any more; the trial is over.
            TransientError: Not now.
        """
        plan = self._trial.plan
        release = None if plan is None else await asyncio.to_thread(self._releases.recorded, plan.challenger)
        if plan is None or release is None:
            return
        served = await self._predictor.served(plan.challenger)
        if self._trial.ready and served.state == "available":
            if time.monotonic() - self._ready_at > _STEADY_S:  # it is not what ended the server before
                await asyncio.to_thread(self._releases.forget_loads, release)
                self._ready_at = math.inf  # once is enough
            return
        self._trial.ready = False
        log.info("model.restoring", version=plan.challenger, state=served.state)
        await self._serve_both(release, plan)

    async def end(self) -> None:
        """Have only the newest version served again; nothing if there is no trial. May be repeated.

        Raises:
            ModelUnavailableError: Not now: until then the version in service answers all the same.
        """
        self._trial.end()
        if not await asyncio.to_thread(version_dirs.trial_folder(self._base).is_dir):
            self._trial.pinned = None
            return
        await self._predictor.serve(self._base)
        newest = await asyncio.to_thread(version_dirs.newest, self._base)
        try:
            async with asyncio.timeout(self._load_timeout_s):
                while (await self._predictor.served()).version != newest:  # noqa: ASYNC110  # the server calls nobody
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise ModelUnavailableError(
                "model server", expected=f"to serve version {newest} alone", got="another"
            ) from None
        self._trial.pinned = None
        await asyncio.to_thread(version_dirs.end_trial, self._base)

    async def _check_champion(self, plan: Plan) -> None:
        newest = await asyncio.to_thread(version_dirs.newest, self._base)
        if plan.champion != newest or plan.challenger == newest:
            raise PermanentError(
                f"version {plan.challenger} beside {plan.champion}",
                expected=f"version {plan.champion} in service",
                got=newest,
            )
        await self._check_served(plan)

    async def _check_served(self, plan: Plan) -> None:
        """Tell a model server that is away from a version that does not serve."""
        champion = await self._predictor.served(plan.champion)
        if champion.state != "available":
            raise ModelUnavailableError(
                f"version {plan.champion}", expected="to be served", got=champion.reason or champion.state
            )

    async def _lost(self, release: Release, plan: Plan) -> bool:
        """Tell whether the server does not have the challenger.

        Raises:
            BundleError: It has lost it too often: then that is what ends it, and the trial is over.
            ModelUnavailableError: The server is away.
        """
        lost = (await self._predictor.served(plan.challenger)).state == "absent"
        if lost and await asyncio.to_thread(self._releases.loads, release) >= LOADS:
            await self._give_up(release, plan, f"a model server that has lost it after {LOADS} loads")
        return lost

    async def _serve_both(self, release: Release, plan: Plan) -> None:
        """Tell the server, unless it has lost the challenger too often.

        Raises:
            BundleError: The challenger must not be served; the trial is over.
            TransientError: Not now.
        """
        lost = await self._lost(release, plan)
        folder, both = version_dirs.trial_folder(self._base), (plan.champion, plan.challenger)
        await self._predictor.serve(folder, both)
        if lost:
            await asyncio.to_thread(self._releases.count_load, release)
        problem = await try_out_once(self._predictor, release, self._load_timeout_s, alone=False)
        if problem is not None:
            await self._give_up(release, plan, problem)
        # A label can be given only to what is served.
        labels = {STABLE: plan.champion, CANARY: plan.challenger}
        await self._predictor.serve(folder, both, labels)
        self._trial.ready = True
        self._ready_at = time.monotonic()

    async def _give_up(self, release: Release, plan: Plan, problem: str) -> NoReturn:
        """End the trial of a version that must not be served.

        Raises:
            BundleError: Always, but for the next.
            ModelUnavailableError: The server is away, and perhaps no fault of the version.
        """
        await self._check_served(plan)
        with suppress(ModelUnavailableError):  # the champion answers all the same
            await self.end()
        raise BundleError(
            f"model {release.model} version {release.version}",
            expected=f"to serve beside version {plan.champion}",
            got=problem,
        )


def _plan(release: Release) -> Plan:
    """Return what a release of stage shadow or canary asks for.

    Raises:
        PermanentError: It does not say which version goes on serving.
    """
    if release.baseline is None:
        raise PermanentError(
            f"release {release.version}", expected="the version beside which it is tried", got="none"
        )
    return Plan(release.stage, release.share, release.baseline, release.version, release.released_at_ms)
