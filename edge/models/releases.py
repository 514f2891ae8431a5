"""The releases of one node: received, believed or refused, and remembered on disk."""

import asyncio
import contextlib
from pathlib import Path

import msgspec
import structlog

from bus.mqtt.client import Bus
from bus.mqtt.connection import BrokerConnectionError
from bus.mqtt.presence import now_ms
from bus.mqtt.subscription import Subscription
from edge import atomic_file
from edge.config import EdgeConfig
from edge.models.signature_check import Trust
from schemas.errors import CodecError
from schemas.messages import Event, Release
from schemas.topics import EVENT, RELEASE

log = structlog.get_logger()

_TELL_S = 10.0


class Releases:
    """What the cloud wants served.

    Args:
        config: Names and folders.
        bus: Connected by its own `run`.
    """

    def __init__(self, config: EdgeConfig, bus: Bus) -> None:
        self._config = config
        self._bus = bus
        self._subscription: Subscription[Release] = bus.subscribe(RELEASE, node=config.node)
        self._records = Path(config.state_dir) / "releases"
        self._trust = Trust(config.release_key, self._records)
        self._newest: asyncio.Queue[Release] = asyncio.Queue(1)

    def load(self) -> None:
        """Read the release key and what was taken so far; call once, before `run`.

        Raises:
            ConfigError: The release key cannot be used.
        """
        self._trust.load()

    async def next(self) -> Release:
        """Wait for the newest release that was not taken yet. Safe to cancel."""
        return await self._newest.get()

    async def run(self) -> None:
        """Keep the newest release; one that was not started yet is overtaken. Safe to cancel.

        The same one again is no news, whatever became of it: brokers and gateways repeat what lasts.
        """
        received: Release | None = None
        async for delivery in self._subscription:
            delivery.ack()
            try:
                release = delivery.message()
            except CodecError as error:
                await self.tell("model.refused", reason=str(error))
                continue
            if release == received:
                continue
            received = release
            if release.model != self._config.model:
                await self.tell(
                    "model.refused", reason=f"expected model {self._config.model}, got {release.model}"
                )
                continue
            if (refusal := self._trust.refusal(release)) is not None:
                log.error("model.refused", version=release.version, reason=refusal)
                await self.tell("model.refused", reason=refusal, version=release.version)
                continue
            if self._newest.full():
                self._newest.get_nowait()
            self._newest.put_nowait(release)

    async def tell(self, event: str, *, reason: str | None = None, **facts: str | float) -> None:
        """Publish an Event about a model; what cannot be published soon is in the log and the Status too."""
        message = Event(
            node=self._config.node,
            name=self._config.name,
            event=event,
            at_ms=now_ms(),
            reason=reason and reason[:1024],
            facts={"model": self._config.model, **facts},
        )
        with contextlib.suppress(BrokerConnectionError, TimeoutError):
            async with asyncio.timeout(_TELL_S):
                await self._bus.connected()  # a retained release arrives before it is open for publishers
                await self._bus.publish(EVENT, message, node=message.node, name=message.name)

    def record(self, release: Release) -> None:
        """Remember a release, on disk complete or not at all: its class names outlive a restart."""
        atomic_file.write(self._record_of(release.version), msgspec.json.encode(release))

    def recorded(self, version: int) -> Release | None:
        """Return the release with which a version was taken, None if it was not."""
        try:
            return msgspec.json.decode(self._record_of(version).read_bytes(), type=Release)
        except (OSError, msgspec.MsgspecError):
            return None

    def is_known(self, release: Release) -> bool:
        """Tell whether this very bundle was taken as this version before."""
        before = self.recorded(release.version)
        return before is not None and before.sha256 == release.sha256

    def count_load(self, release: Release) -> None:
        """Remember that the model server was told once more to load a version beside another."""
        counted = release.released_at_ms, self.loads(release) + 1
        atomic_file.write(self._loads_of(release.version), msgspec.json.encode(counted))

    def loads(self, release: Release) -> int:
        """Return how often that was for this very release; it outlives a restart, and the trial."""
        try:
            counted = self._loads_of(release.version).read_bytes()
            released_at_ms, loads = msgspec.json.decode(counted, type=tuple[int, int])
        except (OSError, msgspec.MsgspecError):
            return 0
        return loads if released_at_ms == release.released_at_ms else 0

    def forget_loads(self, release: Release) -> None:
        """Begin to count anew."""
        self._loads_of(release.version).unlink(missing_ok=True)

    def _loads_of(self, version: int) -> Path:
        return self._record_of(version).with_suffix(".loads")

    def _record_of(self, version: int) -> Path:
        return self._records / f"{self._config.model}-{version}.json"
