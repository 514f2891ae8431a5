"""Publish releases, and follow them until the edge nodes serve them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

from msgspec import structs

from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.publish_confirmed import publish_confirmed
from bus.mqtt.subscription import Delivery, Subscription
from cloud.registry.registry import Bundle
from schemas.errors import CodecError, PermanentError
from schemas.events import EventName
from schemas.messages import Event, Release, Status
from schemas.topics import EVENT, RELEASE, STATUS

_Source = Subscription[Status] | Subscription[Event]

_RETAINED_S = 1.0
LATEST_MS = 2**53 - 1
"""Latest time of the contract, in milliseconds since 1970."""
_VERSION = "{version}"
_FAILURES = (EventName.MODEL_FAILED, EventName.MODEL_REFUSED)


def release_of(bundle: Bundle, node: str, model: str, url: str | None = None) -> Release:
    """Return the unsigned release of a bundle to a node.

    Args:
        bundle: The bundle.
        node: The edge node.
        model: Name of the model on the model server.
        url: Where the node can fetch the bundle, with `{version}` for its number; the local file by default.
    """
    metrics = bundle.card.metrics
    given = None if url is None else url.replace(_VERSION, str(bundle.card.version))
    return Release(
        node=node,
        model=model,
        version=bundle.card.version,
        url=given or bundle.path.resolve().as_uri(),
        sha256=bundle.sha256,
        size_bytes=bundle.size_bytes,
        parts=bundle.parts,
        classes=bundle.card.classes,
        temperature=bundle.card.temperature,
        groups=[group.name for group in bundle.card.groups if group.served],
        metrics={"gold_accuracy": metrics.accuracy, "gold_photos": metrics.photos} if metrics else {},
        released_at_ms=now_ms(),
    )


def later_than(release: Release, retained: Release | None) -> Release:
    """Return an unsigned release that is later than the retained one, even if this machine's clock is behind.

    Nodes refuse a release older than the newest one they accepted. After one by a machine whose
    clock is ahead, the next ones continue from its time.

    Raises:
        PermanentError: There is no later time.
    """
    if retained is None or retained.released_at_ms < release.released_at_ms:
        return release
    if retained.released_at_ms >= LATEST_MS:
        raise PermanentError(
            f"the retained release of node {release.node} has the latest possible time",
            hint=f"remove it with 'mosquitto_pub -r -n -t {RELEASE.name(node=release.node)}'",
        )
    return structs.replace(release, released_at_ms=retained.released_at_ms + 1)


class Announcer:
    """Publishes releases and reports when nodes serve them.

    Args:
        bus: Connected by its own `run`; the subscriptions are made here, before that.
        nodes: The edge nodes.
    """

    def __init__(self, bus: Bus, nodes: Sequence[str]) -> None:
        self._bus = bus
        self._nodes = tuple(dict.fromkeys(nodes))
        self._digests: dict[str, str] = {}
        self._heard: dict[str, str] = {}
        self._echoes = bus.subscribe(RELEASE)
        self._sources: tuple[_Source, ...] = (
            bus.subscribe(STATUS, name="edge"),
            bus.subscribe(EVENT, name="edge"),
        )

    async def _retained(self) -> dict[str, Release]:
        """Return the retained release of each node that has one; waits at most a second for them."""
        found: dict[str, Release] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RETAINED_S):
                while not found.keys() >= {*self._nodes}:
                    delivery = await self._echoes.queue.get()
                    delivery.ack()
                    with contextlib.suppress(CodecError):
                        release = delivery.message()
                        found[release.node] = release
        return found

    async def announce(
        self, releases: Sequence[Release], sign: Callable[[Release], Release] = lambda release: release
    ) -> None:
        """Publish each release, retained for nodes that are offline; call once.

        Args:
            releases: Unsigned.
            sign: Signs a release, after its time was made later than that of the node's retained release.

        Raises:
            BrokerConnectionError: The connection was lost, or the broker rejects the release.
            PermanentError: There is no later time.
        """
        retained = await self._retained()
        # All valid before one is published.
        signed = [sign(later_than(release, retained.get(release.node))) for release in releases]
        for release in signed:
            self._digests[release.node] = release.sha256
            await publish_confirmed(self._bus, self._echoes, RELEASE, release, node=release.node)

    async def served(self, version: int) -> AsyncIterator[str]:
        """Yield each node when it reports that it serves the released bundle, until all do. Safe to cancel.

        A node that serves another bundle under the same version is not among them.

        Raises:
            PermanentError: A node reports that it cannot serve the version.
        """
        missing = set(self._nodes)
        # One pending `get` per queue, renewed when it is done: cancelling a `get` on each round could lose a
        # message that it has just taken.
        arriving: dict[asyncio.Future[Any], _Source] = {
            asyncio.ensure_future(source.queue.get()): source for source in self._sources
        }
        try:
            while missing:
                done, _ = await asyncio.wait(arriving, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    source = arriving.pop(task)
                    arriving[asyncio.ensure_future(source.queue.get())] = source
                    node = self._serving(task.result(), version, missing)
                    if node is not None:
                        missing.remove(node)
                        yield node
        finally:
            for task in arriving:
                task.cancel()

    def last_heard(self, node: str) -> str:
        """Return in words what a node reported last about its model."""
        return self._heard.get(node, "it has never reported to this broker")

    def _serving(
        self, delivery: Delivery[Status] | Delivery[Event], version: int, nodes: Collection[str]
    ) -> str | None:
        """Return the node of `nodes` that reports in this message that it serves its bundle, else None.

        Raises:
            PermanentError: One of the nodes reports that it cannot.
        """
        delivery.ack()
        try:
            message = delivery.message()
        except CodecError:
            return None  # a malformed message of one node must not end the wait for the others
        if message.node not in nodes:
            return None
        if isinstance(message, Status):
            digest = self._digests.get(message.node)
            self._heard[message.node] = _words(message, digest, retained=delivery.retained)
            return message.node if _serves(message, version, digest, delivery) else None
        # A refusal that names no version (an invalid signature, for example) may be of this release.
        if message.event in _FAILURES and message.facts.get("version", version) == version:
            raise PermanentError(
                f"node {message.node} cannot serve version {version}: {message.reason or 'no reason given'}"
            )
        return None


def _serves(
    status: Status, version: int, digest: str | None, delivery: Delivery[Status] | Delivery[Event]
) -> bool:
    """Return True if the released bundle is in service by a node's status."""
    model = status.model
    if model is None or model.version != version or model.state != "available":
        return False
    if model.sha256 is None or digest is None:
        # Without a digest, a retained status may be from before the release and mean another bundle; and a
        # node may be unable to use what its model server has: it cannot write the models, or name classes.
        return not delivery.retained and status.state == "online"
    return model.sha256 == digest


def _words(status: Status, digest: str | None, *, retained: bool) -> str:
    """Describe the state of a release on a node, by its status, for people."""
    model = status.model
    state = f"{status.state}: {status.reason}" if status.reason else status.state
    if model is None:
        return f"{state}, and serves nothing"
    served = f"{state}, and serves {model.name} {model.version or ''} {model.state}".replace("  ", " ")
    if model.sha256 is not None and digest is not None and model.sha256 != digest:
        return f"{served} of another bundle (sha256 {model.sha256[:12]})"
    return f"{served}, as reported before the release" if retained else served
