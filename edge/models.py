"""Models on the edge: release → fetch → verify → place → try out → report.

A version that fails is taken away again, so that the server goes back to the one before (guarantee G6). The
model server watches the folder; nothing is sent to it.
"""

import asyncio
import contextlib
import os
import time
from pathlib import Path

import msgspec
import structlog

from bus.delivery import Subscription
from bus.link import LinkError
from bus.mqtt import Bus
from bus.presence import now_ms
from bus.retry import backoff
from edge import versions
from edge.bundle import BundleError, check, read_class_names
from edge.config import EdgeConfig
from edge.results import scored
from edge.tfserving import ModelUnavailableError, ModelUnfitError, Predictor
from edge.trust import Trust
from schemas.errors import CodecError, TransientError
from schemas.messages import Event, Release, ServedModel
from schemas.topics import EVENT, RELEASE

log = structlog.get_logger()

_POLL_S = 0.1
_WATCH_S = 2.0
_LOOK_S = 3.0
_LAST_RETRY_S = 60.0
_TELL_S = 10.0


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
        self._releases: Subscription[Release] = bus.subscribe(RELEASE, node=config.node)
        self._records = Path(config.state_dir) / "releases"
        self._trust = Trust(config.release_key, self._records)
        self._base = None if config.models_dir is None else Path(config.models_dir) / config.model
        self._class_names: dict[int, tuple[str, ...]] = {}
        self._temperatures: dict[int, float] = {}
        self._served: ServedModel | None = None
        self._taken_away: dict[int, float] = {}

    def class_names(self, version: int) -> tuple[str, ...] | None:
        """Return the classes of a version, from its release or its assets; None if neither is here."""
        if version not in self._class_names:
            release = self._recorded(version)
            names = tuple(release.classes) if release else self._placed_names(version)
            if names is None:
                return None
            self._class_names[version] = names
        return self._class_names[version]

    def temperature(self, version: int) -> float | None:
        """Return what divides the logits in a version; None while there is no release of it here."""
        if version not in self._temperatures:
            if (release := self._recorded(version)) is None:
                return None
            self._temperatures[version] = release.temperature
        return self._temperatures[version]

    def _placed_names(self, version: int) -> tuple[str, ...] | None:
        return None if self._base is None else read_class_names(self._base / str(version))

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
        """Keep the newest release; one that was not started yet is overtaken.

        The same one again is no news, whatever became of it: brokers and gateways repeat what lasts.
        """
        received: Release | None = None
        async for delivery in self._releases:
            delivery.ack()
            try:
                release = delivery.message()
            except CodecError as error:
                await self._tell("model.refused", reason=str(error))
                continue
            if release == received:
                continue
            received = release
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
                    log.error("model.failed", version=release.version, reason=str(error))  # noqa: TRY400  # the sentence says it all
                    await self._tell("model.failed", reason=str(error), version=release.version)
                except (TransientError, OSError) as error:
                    log.warning("model.fetch_failed", version=release.version, error=str(error))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(delay_s):
                            release = await newest.get()  # a newer one needs no more waiting
                    continue
                break

    async def _install(self, release: Release) -> None:
        """Bring one release to service, or raise why it cannot be.

        Raises:
            BundleError: It must not be served; what was served before still is.
            TransientError, OSError: Not now: network or disk.
        """
        if self._base is None:
            await asyncio.to_thread(self._record, release)
        elif await self._is_served(release, self._base):
            await asyncio.to_thread(self._settle, release, self._base)
        else:
            await self._replace(release, self._base)

    async def _is_served(self, release: Release, base: Path) -> bool:
        """Tell whether a release is in service already, as the retained one is after a restart.

        Raises:
            BundleError: Another bundle is in service under this version; a version never changes.
        """
        served = await self._predictor.served()
        placed = base / str(release.version)
        if served.version != release.version or not placed.is_dir():
            return False
        before = await asyncio.to_thread(self._recorded, release.version)
        if before is not None and before.sha256 != release.sha256:
            raise BundleError(
                f"release {release.version}",
                expected=f"sha256 {before.sha256} as the version in service",
                got=release.sha256,
            )
        await asyncio.to_thread(check, placed, release)
        return True

    async def _replace(self, release: Release, base: Path) -> None:
        began = time.monotonic()
        log.info("model.fetching", version=release.version, url=release.url)
        await asyncio.to_thread(versions.bring, release, base)
        self._class_names[release.version] = tuple(release.classes)  # needed with its first answer
        await self._let_it_be_noticed(release.version)
        await asyncio.to_thread(versions.place, release.version, base)
        if (problem := await self._try_out(release)) is not None:
            del self._class_names[release.version]
            await asyncio.to_thread(versions.displace, release.version, base)
            self._taken_away[release.version] = time.monotonic()
            raise BundleError(
                f"model {release.model} version {release.version}", expected="to serve", got=problem
            )
        await asyncio.to_thread(self._settle, release, base)
        took_s = round(time.monotonic() - began, 2)
        log.info("model.available", version=release.version, took_s=took_s)
        await self._report(await self._predictor.served())
        await self._tell("model.available", version=release.version, took_s=took_s)

    async def _let_it_be_noticed(self, version: int) -> None:
        """Wait until the server has looked since a bundle of this number was taken away.

        It knows versions by their numbers: another one in its place before that would be the old one to it.
        """
        if (taken_away_at := self._taken_away.pop(version, None)) is not None:
            await asyncio.sleep(taken_away_at + _LOOK_S - time.monotonic())

    async def _try_out(self, release: Release) -> str | None:
        """Wait until the version serves, with a probability for each class; returns why it does not."""
        began = time.monotonic()
        reason: str | None = "nothing"
        while reason is not None and (waited_s := time.monotonic() - began) < self._config.load_timeout_s:
            served = await self._predictor.served(release.version)
            # Before the server has looked again, a failure may be that of an earlier bundle of this number.
            if served.state == "failed" and waited_s > _LOOK_S:
                return served.reason or served.state
            try:
                reason = await self._missing(release, served)
            except ModelUnfitError as error:
                return str(error)
            await asyncio.sleep(_POLL_S)
        return reason and f"{reason} after {self._config.load_timeout_s} s"

    async def _missing(self, release: Release, served: ServedModel) -> str | None:
        """Return what a version still lacks to be in service, None if nothing.

        Raises:
            ModelUnfitError: It answers, but not for the classes of the release.
        """
        if served.state != "available":
            return served.reason or served.state
        try:
            scored(
                release.model,
                await self._predictor.try_out(release.version),
                tuple(release.classes),
            )
        except ModelUnavailableError as error:
            return str(error)
        newest = (await self._predictor.served()).version
        return None if newest == release.version else f"version {newest} is still served"

    def _settle(self, release: Release, base: Path) -> None:
        self._record(release)
        versions.settle(release.version, base, kept=self._config.versions_kept)

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
        with contextlib.suppress(LinkError, TimeoutError):  # the log and the Status say it too
            async with asyncio.timeout(_TELL_S):
                await self._bus.connected()  # a retained release arrives before it is open for publishers
                await self._bus.publish(EVENT, message, node=self._config.node, name="edge")

    def _record(self, release: Release) -> None:
        """Remember the release, on disk complete or not at all: its class names outlive a restart."""
        self._records.mkdir(parents=True, exist_ok=True)
        path = self._record_of(release.version)
        partial = path.with_suffix(".tmp")
        with partial.open("wb") as file:
            file.write(msgspec.json.encode(release))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        self._class_names[release.version] = tuple(release.classes)

    def _recorded(self, version: int) -> Release | None:
        try:
            return msgspec.json.decode(self._record_of(version).read_bytes(), type=Release)
        except (OSError, msgspec.MsgspecError):
            return None

    def _record_of(self, version: int) -> Path:
        return self._records / f"{self._config.model}-{version}.json"
