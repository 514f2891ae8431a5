"""From a bundle on disk to a model in service: announce a release and see it arrive."""

import asyncio
import hashlib
import tarfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bus.delivery import Delivery
from bus.echo import publish_seen
from bus.mqtt import Bus
from bus.presence import now_ms
from cloud.card import FILE_NAME, Card
from schemas.errors import PermanentError
from schemas.messages import Event, Release, Status
from schemas.topics import EVENT, RELEASE, STATUS

_CARD = f"assets.extra/{FILE_NAME}"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """A packed model: its card, and what a release has to say of the file."""

    path: Path
    card: Card
    sha256: str
    size_bytes: int


def read_bundle(path: Path) -> Bundle:
    """Read a bundle that `gleaner cloud train` wrote.

    Raises:
        PermanentError: No such file, or no bundle with a card.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            member = archive.extractfile(_CARD)
            card = msgspec.json.decode(member.read() if member else b"", type=Card)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except (OSError, KeyError, tarfile.TarError, msgspec.MsgspecError) as error:
        raise PermanentError(f"bundle {path}", expected=f"a tar with {_CARD}", got=error) from None
    return Bundle(path, card, digest.hexdigest(), path.stat().st_size)


def release_of(bundle: Bundle, node: str, model: str, url: str | None = None) -> Release:
    """Return the message that tells a node to serve a bundle.

    Args:
        bundle: What to serve.
        node: Which edge node.
        model: Name of the model on the server.
        url: Where the node can fetch the bundle; its own file by default.
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
        metrics={"gold_accuracy": metrics.accuracy, "gold_photos": metrics.photos} if metrics else {},
        released_at_ms=now_ms(),
    )


class Rollout:
    """Announces releases and follows them until they are served.

    Args:
        bus: Connected by its own `run`; the subscriptions are made here, before that.
        nodes: Which edge nodes.
    """

    def __init__(self, bus: Bus, nodes: Sequence[str]) -> None:
        self._bus = bus
        self._nodes = tuple(dict.fromkeys(nodes))
        self._echoes = bus.subscribe(RELEASE)
        self._events = bus.subscribe(EVENT, name="edge")
        self._statuses = bus.subscribe(STATUS, name="edge")

    async def announce(self, releases: Sequence[Release]) -> None:
        """Publish each release, retained for nodes that are away.

        Raises:
            LinkError: The broker went away, or refuses it.
        """
        for release in releases:
            await publish_seen(self._bus, self._echoes, RELEASE, release, node=release.node)

    async def served(self, version: int) -> AsyncIterator[str]:
        """Yield each node as it reports that it serves the version, until all do.

        Raises:
            PermanentError: A node reports that it cannot serve it.
        """
        missing = set(self._nodes)
        arrived: asyncio.Queue[Delivery[Status] | Delivery[Event]] = asyncio.Queue(256)
        async with asyncio.TaskGroup() as tasks:
            readers = [
                tasks.create_task(_forward(self._statuses, arrived), name="rollout.statuses"),
                tasks.create_task(_forward(self._events, arrived), name="rollout.events"),
            ]
            while missing:
                message = (await arrived.get()).message()
                if message.node not in missing:
                    continue
                if isinstance(message, Event):
                    _raise_failure(message, version)
                elif message.model is not None and message.model.version == version:
                    missing.remove(message.node)
                    yield message.node
            for reader in readers:
                reader.cancel()


async def _forward(
    source: AsyncIterator[Delivery[Status]] | AsyncIterator[Delivery[Event]],
    target: asyncio.Queue[Delivery[Status] | Delivery[Event]],
) -> None:
    async for delivery in source:
        delivery.ack()
        await target.put(delivery)


def _raise_failure(event: Event, version: int) -> None:
    if event.event in ("model.failed", "model.refused") and event.facts.get("version") == version:
        raise PermanentError(
            f"node {event.node}", expected=f"to serve version {version}", got=event.reason or "a failure"
        )
