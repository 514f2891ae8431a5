"""Publish releases, and follow them until the edge nodes serve them."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

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

_FAILURES = (EventName.MODEL_FAILED, EventName.MODEL_REFUSED)


def release_of(bundle: Bundle, node: str, model: str, url: str | None = None) -> Release:
    """Return the unsigned release of a bundle to a node.

    Args:
        bundle: The bundle.
        node: The edge node.
        model: Name of the model on the model server.
        url: Where the node can fetch the bundle; the local file by default.
    """
    metrics = bundle.card.metrics
    return Release(
        node=node,
        model=model,
        version=bundle.card.version,
        url=url or bundle.path.resolve().as_uri(),
        sha256=bundle.sha256,
        size_bytes=bundle.size_bytes,
        classes=bundle.card.classes,
        temperature=bundle.card.temperature,
        metrics={"gold_accuracy": metrics.accuracy, "gold_photos": metrics.photos} if metrics else {},
        released_at_ms=now_ms(),
    )


class Announcer:
    """Publishes releases and reports when nodes serve them.

    Args:
        bus: Connected by its own `run`; the subscriptions are made here, before that.
        nodes: The edge nodes.
    """

    def __init__(self, bus: Bus, nodes: Sequence[str]) -> None:
        self._bus = bus
        self._nodes = tuple(dict.fromkeys(nodes))
        self._echoes = bus.subscribe(RELEASE)
        self._sources: tuple[_Source, ...] = (
            bus.subscribe(STATUS, name="edge"),
            bus.subscribe(EVENT, name="edge"),
        )

    async def announce(self, releases: Sequence[Release]) -> None:
        """Publish each release, retained for nodes that are offline.

        Raises:
            BrokerConnectionError: The connection was lost, or the broker rejects the release.
        """
        for release in releases:
            await publish_confirmed(self._bus, self._echoes, RELEASE, release, node=release.node)

    async def served(self, version: int) -> AsyncIterator[str]:
        """Yield each node when it reports that it serves the version, until all do. Safe to cancel.

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
                    node = _serving(task.result(), version, missing)
                    if node is not None:
                        missing.remove(node)
                        yield node
        finally:
            for task in arriving:
                task.cancel()


def _serving(
    delivery: Delivery[Status] | Delivery[Event], version: int, nodes: Collection[str]
) -> str | None:
    """Return the node of `nodes` that reports in this message that it serves the version, else None.

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
        model = message.model
        serves = model is not None and model.version == version and model.state == "available"
        return message.node if serves else None
    # A refusal that names no version (an invalid signature, for example) may be of this release.
    if message.event in _FAILURES and message.facts.get("version", version) == version:
        raise PermanentError(
            f"node {message.node} cannot serve version {version}: {message.reason or 'no reason given'}"
        )
    return None
