"""Observe one model on disk and on the model server, and perform the actions that `reconcile` decides.

No decisions here: an action succeeds, changes the Attempt, or raises a TransientError or OSError.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import assert_never

import structlog

from bus.metrics import Counters
from edge.models import actions, manifest, smoke_test, version_dirs
from edge.models.bundle import BundleError, check
from edge.models.canary import Canary
from edge.models.observation import Attempt, Folder, Observation, Server
from edge.models.reconcile import VERSIONS_KEPT
from edge.models.release_records import ReleaseRecords
from edge.models.transfer.bundle_source import Traffic
from edge.models.transfer.mirror_client import SiteMirror
from edge.serving.client import ModelMissingError, Predictor
from edge.serving.traffic_router import TrafficRouter
from edge.serving.traffic_split import TrafficSplit
from schemas.messages import Release
from schemas.text import without_secrets

log = structlog.get_logger()


class Actuator:
    """The only writer of the version directories, the model server's configuration and the traffic split.

    Args:
        base: The model's version directories, as an absolute path that the model server sees too; None if
            others place the models.
        records: Releases installed on this node.
        predictor: The model server. Its list of models is replaced: it belongs to this node.
        router: Routes the photos.
        counters: For the bytes of downloads.
        mirror: Downloads are made from it; None for none.
    """

    def __init__(
        self,
        base: Path | None,
        records: ReleaseRecords,
        predictor: Predictor,
        router: TrafficRouter,
        counters: Counters,
        *,
        mirror: SiteMirror | None = None,
    ) -> None:
        self._base = base
        self._records = records
        self._predictor = predictor
        self._router = router
        self._counters = counters
        self._mirror = mirror
        self._canary = None if base is None else Canary(base, records, predictor, router)
        self._removed_at: dict[int, float] = {}
        self._verifier = manifest.Verifier()
        self.abandoned: Callable[[], bool] = lambda: False
        """Asked during a download, in its thread; True ends it."""

    # observe

    def torn_version(self) -> int | None:
        """Return the version that the server loads unasked, if its files are damaged. Blocking."""
        newest = None if self._base is None else version_dirs.newest(self._base)
        if newest is None or self._base is None:
            return None
        return newest if self._verifier.damage(self._base / str(newest)) is not None else None

    async def observe(self, release: Release, attempt: Attempt) -> Observation:
        """Return all that the next decision depends on. Safe to cancel."""
        folder, recorded, loads = await asyncio.to_thread(self._read_disk, release)
        server = Server() if folder is None else await self._ask_server(release)
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
            rescan_in_s=max(0.0, removed_at + smoke_test.RESCAN_S - time.monotonic()),
            ready_for_s=0.0 if self._canary is None else self._canary.ready_for_s(),
        )

    def _read_disk(self, release: Release) -> tuple[Folder | None, Release | None, int]:
        recorded, loads = self._records.recorded(release.version), self._records.loads(release)
        if (base := self._base) is None:
            return None, recorded, loads
        folder = Folder(
            versions=version_dirs.versions(base),
            canary=version_dirs.canary_versions(base),
            fetched=version_dirs.is_fetched(release.version, base),
            leftovers=version_dirs.has_leftovers(base),
            unproven=version_dirs.unproven(base),
            mismatch=_mismatch(base / str(release.version), release),
            damage=self._verifier.damage(base / str(release.version)),
            verifiable=(base / str(release.version) / manifest.NAME).exists(),
        )
        return folder, recorded, loads

    async def _ask_server(self, release: Release) -> Server:
        if release.stage == "all":
            return Server(in_service=await self._predictor.model_status(self._router.split.pinned))
        if release.baseline is None:
            return Server()
        return Server(
            champion=await self._predictor.model_status(release.baseline),
            challenger=await self._predictor.model_status(release.version),
        )

    # act

    async def perform(self, action: actions.Step, release: Release, attempt: Attempt) -> Attempt:
        """Perform an action and return the attempt after it.

        Safe to cancel: what was begun on disk is completed or undone by a later run.

        Raises:
            TransientError, OSError: Not possible now; observe again before the next try.
        """
        if isinstance(action, actions.Record):
            await asyncio.to_thread(self._record, release)
            return attempt
        assert self._base is not None  # without `models_dir`, Record is the only action
        assert self._canary is not None
        if isinstance(action, actions.CanaryStep):
            attempt = await self._canary.perform(action, release, attempt)
            if isinstance(action, actions.RejectCanary):
                self._note_removal(release.version)
            return attempt
        return await self._change_version(action, release, attempt, self._base)

    async def _change_version(  # noqa: C901, PLR0911  # one case per action
        self, action: actions.VersionStep, release: Release, attempt: Attempt, base: Path
    ) -> Attempt:
        version = release.version
        match action:
            case actions.Fetch():
                return await self._fetch(release, attempt, base)
            case actions.Restore():
                await asyncio.to_thread(version_dirs.restore, version, base)
                return replace(attempt, fetched=True)
            case actions.WaitForRescan(seconds):
                await asyncio.sleep(seconds)
            case actions.Activate(promote):
                await self._activate(release, base, promote=promote)
                return replace(attempt, fetched=False, activated=True, deployed=True)
            case actions.Revert():
                for removed in await asyncio.to_thread(version_dirs.revert, base):
                    self._note_removal(removed)
            case actions.Displace(reason):
                log.error("model.damaged", version=version, reason=reason)
                await asyncio.to_thread(version_dirs.displace, version, base)
                self._note_removal(version)
                return replace(attempt, fetched=False)
            case actions.ServeNewest():
                await self._predictor.reload_config(base)
                return replace(attempt, reloaded=True)
            case actions.SmokeTest(alone):
                return await self._smoke_test(release, attempt, alone=alone)
            case actions.Prune():
                await asyncio.to_thread(version_dirs.prune, version, base, kept=VERSIONS_KEPT)
                return replace(attempt, pruned=True)
            case actions.Rollback():
                await asyncio.to_thread(version_dirs.rollback, version, base)
                await asyncio.to_thread(version_dirs.remove_canary, base)
                self._router.apply(TrafficSplit())
                self._note_removal(version)
            case _:
                assert_never(action)
        return attempt

    def _record(self, release: Release) -> None:
        self._records.record(release)
        # After the record: a version without a mark and a record would pass for one placed by others.
        if self._base is not None and release.stage == "all":
            version_dirs.set_proven(release.version, self._base)

    async def _fetch(self, release: Release, attempt: Attempt, base: Path) -> Attempt:
        log.info("release.fetching", version=release.version, url=without_secrets(release.url))
        traffic, left = Traffic(), threading.Event()

        def abandoned() -> bool:
            return left.is_set() or self.abandoned()

        try:
            await asyncio.to_thread(
                version_dirs.download, release, base, abandoned, traffic, mirror=self._mirror
            )
        except BundleError as error:
            return replace(attempt, invalid=str(error))
        finally:
            left.set()  # if this was cancelled, the end of the process waits for the thread
            self._counters.add("release.fetched_bytes", traffic.fetched_bytes)
            self._counters.add("release.reused_bytes", traffic.reused_bytes)
        log.info(
            "release.fetched",
            version=release.version,
            fetched_bytes=traffic.fetched_bytes,
            reused_bytes=traffic.reused_bytes,
        )
        return replace(attempt, fetched=True)

    async def _activate(self, release: Release, base: Path, *, promote: bool) -> None:
        self._records.describe(release)  # its first answer needs the class names
        if promote:
            # It is loaded from the canary folder, so it can answer everything before it is moved.
            self._router.apply(TrafficSplit(pinned=release.version))
        mark = None if promote else release.sha256
        await asyncio.to_thread(version_dirs.activate, release.version, base, unproven_sha256=mark)

    async def _smoke_test(self, release: Release, attempt: Attempt, *, alone: bool) -> Attempt:
        try:
            heads = await asyncio.to_thread(self._records.heads, release.version, again=True)
            problem = await smoke_test.smoke_test(self._predictor, release, alone=alone, heads=heads)
        except ModelMissingError as error:
            if not alone:  # the server has forgotten both versions: wait, then configure it again
                raise
            return attempt.with_loss(str(error))
        return attempt.with_test(problem)

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
