"""Receive the releases of one node, keep the newest acceptable one, and publish events about them."""

import asyncio
import contextlib
from pathlib import Path

import structlog

from bus.mqtt.client import Bus
from bus.mqtt.errors import UNPUBLISHED
from bus.mqtt.presence import now_ms
from bus.mqtt.subscription import Delivery, Subscription
from edge.config import EdgeConfig
from edge.models.release_records import ReleaseRecords
from edge.models.releases.signature_check import SignatureVerifier
from schemas.errors import CodecError
from schemas.events import EventName
from schemas.field_types import MAX_TEXT_CHARS
from schemas.messages import Event, Release
from schemas.topics import EVENT, RELEASE

log = structlog.get_logger()

_PUBLISH_TIMEOUT_S = 10.0


class Releases:
    """The newest release for this node. Holds one release; a newer one replaces it.

    Args:
        config: Node, model and release key.
        bus: Connected by its own `run`; make this before that.
        records: Releases that earlier runs installed.
    """

    def __init__(self, config: EdgeConfig, bus: Bus, records: ReleaseRecords) -> None:
        self._config = config
        self._bus = bus
        self._records = records
        self._subscription: Subscription[Release] = bus.subscribe(RELEASE, node=config.node)
        self._verifier = SignatureVerifier(
            config.release_key, Path(config.state_dir) / "releases" / f"{config.model}.accepted"
        )
        self._newest: asyncio.Queue[Release] = asyncio.Queue(1)

    def load(self) -> None:
        """Read the release key and the recorded releases; call once, before `run`. Blocking.

        Raises:
            ConfigError: The release key cannot be used.
        """
        self._verifier.load(self._records.all())

    def has_newer(self) -> bool:
        """Return True while a release waits for `next`; may be called from any thread."""
        return self._newest.full()

    async def next(self, within_s: float | None = None) -> Release | None:
        """Wait for the next release; None if none arrives in time. Safe to cancel: a release is not lost."""
        try:
            async with asyncio.timeout(within_s):
                return await self._newest.get()
        except TimeoutError:
            return None

    async def run(self) -> None:
        """Receive releases until cancelled. Safe to cancel: the retained release is delivered again."""
        latest: Release | None = None
        async for delivery in self._subscription:
            delivery.ack()  # at once: the release is retained, so a crash loses nothing
            release = await self._acceptable(delivery, latest)
            if release is None:
                continue
            latest = release
            await self._offer(release)

    async def _acceptable(self, delivery: Delivery[Release], latest: Release | None) -> Release | None:
        """Return the release of a message, None for a cleared or malformed one or a repetition."""
        if not delivery.payload:
            return None
        try:
            release = delivery.message()
        except CodecError as error:
            await self.publish_event(EventName.MODEL_REFUSED, reason=str(error))
            return None
        # Brokers redeliver and gateways re-send: without this a failed release would be installed again.
        return None if release == latest else release

    async def _offer(self, release: Release) -> None:
        if release.model != self._config.model:
            await self.publish_event(
                EventName.MODEL_REFUSED,
                reason=f"release of model {release.model}, but this node serves model {self._config.model}",
            )
            return
        if (reason := self._verifier.rejection(release)) is not None:
            log.error("model.refused", version=release.version, reason=reason)
            await self.publish_event(EventName.MODEL_REFUSED, reason=reason, version=release.version)
            return
        if self._newest.full():  # not started yet: the newer release replaces it
            self._newest.get_nowait()
        self._newest.put_nowait(release)

    async def publish_event(
        self, event: EventName, *, reason: str | None = None, **facts: str | float
    ) -> None:
        """Publish an event about the model; dropped after 10 s without a broker (log and Status have it).

        Args:
            event: Name of the event.
            reason: Cut to the length that the contract allows.
            facts: Values such as the version.
        """
        message = Event(
            node=self._config.node,
            name=self._config.name,
            event=event,
            at_ms=now_ms(),
            reason=reason and reason[:MAX_TEXT_CHARS],
            facts={"model": self._config.model, **facts},
        )
        with contextlib.suppress(*UNPUBLISHED, TimeoutError):
            async with asyncio.timeout(_PUBLISH_TIMEOUT_S):
                # A retained release is delivered before the connection is open for publishing.
                await self._bus.connected()
                await self._bus.publish(EVENT, message, node=message.node, name=message.name)
