"""Observe one model on disk and on the model server, and perform the actions that `reconcile` decides.

No decisions here: an action succeeds, changes the Attempt, or raises a TransientError or OSError.
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
from edge.models.bundle import BundleError, check
from edge.models.reconcile import VERSIONS_KEPT, Attempt, Folder, Observation, Server, canary_plan
from edge.models.release_records import ReleaseRecords
from edge.serving.client import ModelMissingError, ModelUnavailableError, Predictor
from edge.serving.traffic_router import TrafficRouter
from edge.serving.traffic_split import TrafficSplit
from schemas.messages import Release

log = structlog.get_logger()

STABLE = "stable"
"""Label of the champion on the model server, for other clients of it."""
CANARY = "canary"
"""Label of the challenger."""

_POLL_S = 0.1


class Actuator:
    """The only writer of the version directories, the model server's configuration and the traffic split.

    Args:
        base: The model's version directories, as an absolute path that the model server sees too; None if
            others place the models.
        records: Releases installed on this node.
        predictor: The model server. Its list of models is replaced: it belongs to this node.
        router: Routes the photos.
    """

    def __init__(
        self, base: Path | None, records: ReleaseRecords, predictor: Predictor, router: TrafficRouter
    ) -> None:
        self._folder = base
        self._records = records
        self._predictor = predictor
        self._router = router
        self._removed_at: dict[int, float] = {}
        self._ready_at = math.inf

    @property
    def _base(self) -> Path:
        assert self._folder is not None  # without it, Record is the only action
        return self._folder

    # observe

    async def observe(self, release: Release, attempt: Attempt) -> Observation:
        """Return all that the next decision depends on. Safe to cancel."""
        folder, recorded, loads = await asyncio.to_thread(self._read_disk, release)
        server = Server() if folder is None else await self._ask_server(release)
        now = time.monotonic()
        removed_at = self._removed_at.get(release.version, -math.inf)
        return Observation(
            release=release,
            recorded=recorded,
            loads=loads,
            folder=folder,
            server=server,
            # Read last: the inference pipeline may find the challenger missing while the server is asked.
            split=self._router.split,
            attempt=attempt,
            rescan_in_s=max(0.0, removed_at + smoke_test.RESCAN_S - now),
            ready_for_s=now - self._ready_at,
        )

    def _read_disk(self, release: Release) -> tuple[Folder | None, Release | None, int]:
        recorded, loads = self._records.recorded(release.version), self._records.loads(release)
        if (base := self._folder) is None:
            return None, recorded, loads
        folder = Folder(
            versions=version_dirs.versions(base),
            canary=version_dirs.canary_versions(base),
            fetched=version_dirs.is_fetched(release.version, base),
            set_aside=version_dirs.is_set_aside(base),
            unproven=version_dirs.unproven(base),
            mismatch=_mismatch(base / str(release.version), release),
        )
        return folder, recorded, loads

    async def _ask_server(self, release: Release) -> Server:
        if release.stage == "all":
            return Server(in_service=await self._predictor.model_status(self._router.split.pinned))
        if release.beside is None:
            return Server()
        return Server(
            champion=await self._predictor.model_status(release.beside),
            challenger=await self._predictor.model_status(release.version),
        )

    # act

    async def perform(  # noqa: C901, PLR0911, PLR0912  # one case per action
        self, action: actions.Step | actions.Undo, release: Release, attempt: Attempt
    ) -> Attempt:
        """Perform an action and return the attempt after it.

        Safe to cancel: what was begun on disk is completed or undone by a later run.

        Raises:
            TransientError, OSError: Not possible now; observe again before the next try.
        """
        version, router = release.version, self._router
        match action:
            case actions.Fetch():
                return await self._fetch(release, attempt)
            case actions.Restore():
                await asyncio.to_thread(version_dirs.restore, version, self._base)
                return replace(attempt, fetched=True)
            case actions.WaitForRescan(seconds):
                await asyncio.sleep(seconds)
            case actions.Activate(promote):
                self._records.describe(release)  # its first answer needs the class names
                if promote:
                    # It is loaded from the canary folder, so it can answer everything before it is moved.
                    router.apply(TrafficSplit(pinned=version))
                mark = None if promote else release.sha256
                await asyncio.to_thread(version_dirs.activate, version, self._base, unproven_sha256=mark)
                return replace(attempt, fetched=False, activated=True, deployed=True)
            case actions.Revert():
                for removed in await asyncio.to_thread(version_dirs.revert, self._base):
                    self._note_removal(removed)
            case actions.ServeNewest():
                await self._predictor.reload_config(self._base)
                return replace(attempt, reloaded=True)
            case actions.SmokeTest(alone):
                return await self._smoke_test(release, attempt, alone=alone)
            case actions.Record():
                await asyncio.to_thread(self._record, release)
            case actions.Prune():
                await asyncio.to_thread(version_dirs.prune, version, self._base, kept=VERSIONS_KEPT)
                return replace(attempt, pruned=True)
            case actions.Rollback():
                await asyncio.to_thread(version_dirs.rollback, version, self._base)
                await asyncio.to_thread(version_dirs.remove_canary, self._base)
                router.apply(TrafficSplit())
                self._note_removal(version)
            case actions.StageCanary():
                plan = canary_plan(release)
                await asyncio.to_thread(version_dirs.stage_canary, plan.champion, plan.challenger, self._base)
                await asyncio.to_thread(self._records.record, release)
                return replace(attempt, fetched=False)
            case actions.ServeBoth(count_load):
                await self._serve_both(release, count_load=count_load)
                return replace(attempt, served_both=True, tested=False, problem=None)
            case actions.StartSplit():
                await self._start_split(release)
            case actions.FollowPlan():
                router.apply(router.split.follow(canary_plan(release)))
            case actions.StopSplit():
                router.apply(router.split.without_challenger())
            case actions.ForgetLoads():
                await asyncio.to_thread(self._records.forget_loads, version)
            case actions.EndCanary():
                await self._end_canary()
            case actions.RejectCanary():
                # The champion answers in any case; the next deployment removes what is left.
                with suppress(ModelUnavailableError):
                    await self._end_canary()
                self._note_removal(version)
            case _:
                assert_never(action)
        return attempt

    def _record(self, release: Release) -> None:
        self._records.record(release)
        # After the record: a version without a mark and a record would pass for one placed by others.
        if self._folder is not None and release.stage == "all":
            version_dirs.set_proven(release.version, self._folder)

    async def _fetch(self, release: Release, attempt: Attempt) -> Attempt:
        log.info("release.fetching", version=release.version, url=release.url)
        try:
            await asyncio.to_thread(version_dirs.download, release, self._base)
        except BundleError as error:
            return replace(attempt, invalid=str(error))
        return replace(attempt, fetched=True)

    async def _smoke_test(self, release: Release, attempt: Attempt, *, alone: bool) -> Attempt:
        try:
            problem = await smoke_test.smoke_test(self._predictor, release, alone=alone)
        except ModelMissingError as error:
            if not alone:  # the server has forgotten both versions: wait, then tell it again
                raise
            return attempt.with_loss(str(error))
        return attempt.with_test(problem)

    async def _serve_both(self, release: Release, *, count_load: bool) -> None:
        plan = canary_plan(release)
        log.info("canary.loading", version=plan.challenger, baseline=plan.champion)
        self._router.apply(TrafficSplit.preparing(plan))
        await self._predictor.reload_config(
            version_dirs.canary_folder(self._base), (plan.champion, plan.challenger)
        )
        if count_load:  # after the call, so that a server that is away does not count against the version
            await asyncio.to_thread(self._records.count_load, release)

    async def _start_split(self, release: Release) -> None:
        plan = canary_plan(release)
        # The server accepts labels only for versions that are available, so they follow the smoke test.
        await self._predictor.reload_config(
            version_dirs.canary_folder(self._base),
            (plan.champion, plan.challenger),
            {STABLE: plan.champion, CANARY: plan.challenger},
        )
        self._router.apply(TrafficSplit.preparing(plan).with_challenger(ready=True))
        self._ready_at = time.monotonic()

    async def _end_canary(self) -> None:
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

    def _note_removal(self, version: int) -> None:
        """Note that a bundle of this number is gone.

        The model server identifies versions by number: another bundle put there before it has read the folder
        again would be the old one to it, still loaded.
        """
        self._records.forget(version)
        self._removed_at[version] = time.monotonic()


def _mismatch(directory: Path, release: Release) -> str | None:
    if not directory.is_dir():
        return None
    try:
        check(directory, release)
    except BundleError as error:
        return str(error)
    return None
