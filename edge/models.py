"""Models on the edge: release → fetch → verify → place → available → report.

A version that fails is taken away again, so that the server goes back to the one before (guarantee G6). The
model server watches the folder; nothing is sent to it.
"""

import asyncio
import contextlib
import os
import shutil
import time
from pathlib import Path

import msgspec
import structlog

from bus.delivery import Subscription
from bus.mqtt import Bus, LinkError
from bus.presence import now_ms
from bus.retry import backoff
from edge.bundle import BundleError, check, fetch, read_class_names, unpack
from edge.config import EdgeConfig
from edge.tfserving import Predictor
from edge.trust import Trust
from schemas.errors import CodecError, TransientError
from schemas.messages import Event, Release, ServedModel
from schemas.topics import EVENT, RELEASE

log = structlog.get_logger()

_POLL_S = 0.1
_WATCH_S = 2.0
_LOOK_S = 3.0
_LAST_RETRY_S = 60.0


class Models:
    """Places the released model and knows its class names.

    Args:
        config: Names and folders. Without `models_dir` somebody else places the models, and releases tell the
            class names alone.
        bus: Connected by its own `run`.
        predictor: The model server, asked for its status.
    """

    def __init__(self, config: EdgeConfig, bus: Bus, predictor: Predictor) -> None:
        self._config = config
        self._bus = bus
        self._predictor = predictor
        self._releases: Subscription[Release] = bus.subscribe(RELEASE, queue=16, node=config.node)
        self._records = Path(config.state_dir) / "releases"
        self._trust = Trust(config.release_key, self._records)
        self._base = None if config.models_dir is None else Path(config.models_dir) / config.model
        self._class_names: dict[int, tuple[str, ...]] = {}
        self._served: ServedModel | None = None

    def class_names(self, version: int) -> tuple[str, ...] | None:
        """Return the classes of a version, from its release or its assets; None if neither is here."""
        if version not in self._class_names:
            names = self._recorded_names(version)
            if names is None and self._base is not None:
                names = read_class_names(self._base / str(version))
            if names is None:
                return None
            self._class_names[version] = names
        return self._class_names[version]

    async def run(self) -> None:
        """Place releases and report what is served, until cancelled.

        Safe to cancel: a version half fetched is not placed, and the retained release comes again.

        Raises:
            ConfigError: The release key cannot be used.
        """
        await asyncio.to_thread(self._trust.load)
        async with asyncio.TaskGroup() as tasks:
            newest: asyncio.Queue[Release] = asyncio.Queue(1)
            tasks.create_task(self._receive(newest), name="models.receive")
            tasks.create_task(self._follow(newest), name="models.follow")
            tasks.create_task(self._watch(), name="models.watch")

    async def _receive(self, newest: asyncio.Queue[Release]) -> None:
        """Keep the newest release; one that was not started yet is overtaken."""
        async for delivery in self._releases:
            delivery.ack()
            try:
                release = delivery.message()
            except CodecError as error:
                await self._tell("model.refused", reason=str(error))
                continue
            if release.model != self._config.model:
                await self._tell(
                    "model.refused", reason=f"expected model {self._config.model}, got {release.model}"
                )
                continue
            if (refusal := self._trust.refusal(release)) is not None:
                log.error("model.refused", version=release.version, reason=refusal)
                await self._tell("model.refused", reason=refusal, version=release.version)
                continue
            if newest.full():
                newest.get_nowait()
            newest.put_nowait(release)

    async def _follow(self, newest: asyncio.Queue[Release]) -> None:
        while True:
            release = await newest.get()
            for delay_s in backoff(cap_s=_LAST_RETRY_S):
                try:
                    await self._install(release)
                except BundleError as error:
                    await self._give_up(release, str(error))
                except TransientError as error:
                    log.warning("model.fetch_failed", version=release.version, error=str(error))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(delay_s):
                            release = await newest.get()  # a newer one needs no more waiting
                    continue
                break

    async def _install(self, release: Release) -> None:
        """Bring one release to service, or raise why it cannot be."""
        await asyncio.to_thread(self._record, release)
        self._class_names[release.version] = tuple(release.classes)
        if self._base is None:
            return
        began = time.monotonic()
        served = await self._predictor.served()
        placed = self._base / str(release.version)
        if served.version == release.version and placed.is_dir():
            return  # the retained release after a restart
        log.info("model.fetching", version=release.version, url=release.url)
        await asyncio.to_thread(self._place, release, self._base)
        if (problem := await self._await_available(release.version)) is not None:
            raise BundleError(
                f"model {release.model} version {release.version}", expected="to load", got=problem
            )
        await asyncio.to_thread(self._prune, release.version, self._base)
        took_s = round(time.monotonic() - began, 2)
        log.info("model.available", version=release.version, took_s=took_s)
        await self._report(await self._predictor.served())
        await self._tell("model.available", version=release.version, took_s=took_s)

    def _place(self, release: Release, base: Path) -> None:
        """Fetch, verify and unpack beside the versions, then rename into place."""
        base.mkdir(parents=True, exist_ok=True)
        bundle, partial = base / f"tmp-{release.version}.tar", base / f"tmp-{release.version}"
        try:
            fetch(release, bundle)
            unpack(bundle, partial, most_bytes=release.size_bytes)
            check(partial, release)
            target = base / str(release.version)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            # The server serves the newest: to go back to an older one, the newer ones have to go.
            for newer in _versions(base):
                if newer > release.version:
                    shutil.rmtree(base / str(newer))
        finally:
            bundle.unlink(missing_ok=True)
            shutil.rmtree(partial, ignore_errors=True)

    async def _await_available(self, version: int) -> str | None:
        """Wait until the server serves the version; returns why it does not."""
        began = time.monotonic()
        reason = "nothing"
        while (waited_s := time.monotonic() - began) < self._config.load_timeout_s:
            served = await self._predictor.served(version)
            if served.state == "available":
                return None
            reason = served.reason or served.state
            # Before the server has looked again, a failure may be that of an earlier bundle of this number.
            if served.state == "failed" and waited_s > _LOOK_S:
                return reason
            await asyncio.sleep(_POLL_S)
        return f"{reason} after {self._config.load_timeout_s} s"

    async def _give_up(self, release: Release, reason: str) -> None:
        """Take a version away that must not be served; the server goes back by itself."""
        if self._base is not None:
            await asyncio.to_thread(shutil.rmtree, self._base / str(release.version), ignore_errors=True)
        log.error("model.failed", version=release.version, reason=reason)
        await self._tell("model.failed", reason=reason, version=release.version)

    def _prune(self, version: int, base: Path) -> None:
        kept = sorted((older for older in _versions(base) if older <= version), reverse=True)
        for old in kept[self._config.versions_kept :]:
            shutil.rmtree(base / str(old), ignore_errors=True)

    async def _watch(self) -> None:
        while True:
            await self._report(await self._predictor.served())
            await asyncio.sleep(_WATCH_S)

    async def _report(self, served: ServedModel) -> None:
        if served != self._served:
            self._served = served
            log.info("model.served", version=served.version, state=served.state, reason=served.reason)
            await self._bus.report(model=served)

    async def _tell(self, event: str, *, reason: str | None = None, **facts: str | float) -> None:
        message = Event(
            node=self._config.node,
            name="edge",
            event=event,
            at_ms=now_ms(),
            reason=reason and reason[:1024],
            facts={"model": self._config.model, **facts},
        )
        with contextlib.suppress(LinkError):  # the log and the Status say it too
            await self._bus.publish(EVENT, message, node=self._config.node, name="edge")

    def _record(self, release: Release) -> None:
        """Keep the release on disk, complete or not at all: its class names outlive a restart."""
        self._records.mkdir(parents=True, exist_ok=True)
        path = self._records / f"{release.model}-{release.version}.json"
        partial = path.with_suffix(".tmp")
        with partial.open("wb") as file:
            file.write(msgspec.json.encode(release))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)

    def _recorded_names(self, version: int) -> tuple[str, ...] | None:
        path = self._records / f"{self._config.model}-{version}.json"
        try:
            return tuple(msgspec.json.decode(path.read_bytes(), type=Release).classes)
        except (OSError, msgspec.MsgspecError):
            return None


def _versions(base: Path) -> list[int]:
    return [int(path.name) for path in base.iterdir() if path.name.isdecimal() and path.is_dir()]
