"""Kill the nodes of a broker or of an object store under load, and count samples lost and doubled.

    python -m bench.failover --broker-node "1884 artemis/a/bin/artemis run" --broker-node "1885 …"

An outbox sends samples at a steady rate and keeps each until its receipt, as an edge does; collectors are
processes of their own. In turn a node is killed with SIGKILL and started again, each time only after receipts
have come again, so that a slow machine makes the run longer and not endless. At the end every sample that was
sent is looked for in the dataset by its photo id.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import secrets
import shlex
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from bench.collector import make_sample
from bench.photos import NODE, pictures
from bus import log
from bus.broker.process import is_listening, local_broker
from bus.config import Broker, OutboxLimits
from bus.metrics import Counters
from bus.mqtt.client import Bus, transient_client_id
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from cloud.dataset.store import Store
from demo.processes import Processes
from schemas.codec import encode
from schemas.topics import RECEIPT, SAMPLE

_START_S = 120.0
_POLL_S = 0.2
_DRAIN_S = 300.0
_LONGEST = 5
"""Sending takes at most this many times its duration, while nodes are still to be killed."""
_LIMITS = OutboxLimits(window=512, resend_first_s=5.0, resend_cap_s=10.0, min_free_bytes=0)


class Node:
    """A server process that is killed and started again.

    Args:
        words: Its port and its command, which must stay in the foreground.
        log_path: Where its output goes.
    """

    def __init__(self, words: str, log_path: Path) -> None:
        port, self._command = words.split(maxsplit=1)
        self.port = int(port)
        self._log_path = log_path
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, without waiting for its port."""
        with self._log_path.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *shlex.split(self._command), stdout=output, stderr=output, start_new_session=True
            )

    async def kill(self) -> None:
        """Kill it with its children."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
            self._process = None


@contextlib.asynccontextmanager
async def _nodes(words: Sequence[str], folder: Path, name: str) -> AsyncIterator[list[Node]]:
    """Run nodes, entered when a first one listens; of an active and passive ones the others never do."""
    nodes = [Node(text, folder / f"{name}-{number}.log") for number, text in enumerate(words)]
    try:
        for node in nodes:
            await node.start()
        async with asyncio.timeout(_START_S):
            while nodes and not any(is_listening(node.port) for node in nodes):  # noqa: ASYNC110  # of others
                await asyncio.sleep(_POLL_S)
        yield nodes
    finally:
        for node in nodes:
            await node.kill()


class Forwarder:
    """One address for all nodes: passes each connection to the next node that accepts it."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._ports = itertools.cycle([node.port for node in nodes])
        self._count = len(nodes)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(OSError):
            for port in itertools.islice(self._ports, self._count):
                with contextlib.suppress(ConnectionRefusedError):
                    there, back = await asyncio.open_connection("127.0.0.1", port)
                    await asyncio.wait(
                        [asyncio.create_task(_copy(reader, back)), asyncio.create_task(_copy(there, writer))],
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    back.transport.abort()
                    break
        writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()


class Sender:
    """Sends samples at a steady rate, each until its receipt.

    Args:
        port: Port of the broker.
        database: For the outbox.
    """

    def __init__(self, port: int, database: Database) -> None:
        self.sent: list[str] = []
        self.receipts: Counter[str] = Counter()
        self.longest_silence_s = 0.0
        self._bus = Bus(Broker(port=port, keepalive_s=5), transient_client_id("edge"))
        self._subscription = self._bus.subscribe(RECEIPT, node=NODE)
        self._outbox = Outbox(database, _LIMITS, Counters(), name="sample")

    async def run(self, per_s: float, seconds: float, killed: Callable[[], bool]) -> None:
        """Send for at least this long, and until the last node was killed; then wait for the last receipts.

        Raises:
            TimeoutError: Some had no receipt after five minutes.
        """
        async with asyncio.TaskGroup() as tasks:
            owned = [
                tasks.create_task(self._bus.run()),
                tasks.create_task(self._outbox.run(self._bus.publish_bytes, self._bus.connected)),
                tasks.create_task(self._take_receipts()),
            ]
            await self._bus.connected()
            await self._send(per_s, seconds, killed)
            async with asyncio.timeout(_DRAIN_S):
                await self._outbox.wait_until_empty()
            for task in owned:
                task.cancel()

    async def _send(self, per_s: float, seconds: float, killed: Callable[[], bool]) -> None:
        images = itertools.cycle(pictures(64, size_px=(16, 16), grain_px=8))
        started_at = time.monotonic()
        for number in range(int(per_s * seconds * _LONGEST)):
            if number >= per_s * seconds and killed():
                return
            await asyncio.sleep(started_at + number / per_s - time.monotonic())
            photo_id = secrets.token_hex(16)
            await self._outbox.put(
                photo_id, SAMPLE.name(node=NODE), encode(SAMPLE, make_sample(photo_id, next(images)))
            )
            self.sent.append(photo_id)

    async def _take_receipts(self) -> None:
        last = time.monotonic()
        async for delivery in self._subscription:
            now = time.monotonic()
            self.longest_silence_s, last = max(self.longest_silence_s, now - last), now
            receipt = delivery.message()
            self.receipts[receipt.status] += 1
            await self._outbox.mark_answered(receipt.photo_id)
            delivery.ack()


async def _kill_in_turn(nodes: Sequence[Node], arguments: argparse.Namespace, sender: Sender) -> None:
    """Kill the listening nodes one after the other, as often as asked for."""
    turn = 0
    for _ in range(arguments.kills if nodes else 0):
        received = sender.receipts.total()
        while sender.receipts.total() == received:  # noqa: ASYNC110  # what was killed before is back
            await asyncio.sleep(_POLL_S)
        await asyncio.sleep(arguments.every_s)
        while not is_listening(
            nodes[turn % len(nodes)].port
        ):  # a passive one takes its turn when it is active
            turn += 1
            await asyncio.sleep(_POLL_S)
        node = nodes[turn % len(nodes)]
        turn += 1
        print(f"kills the node at port {node.port}; {sender.receipts.total()} receipts so far", flush=True)
        try:
            await node.kill()
            await asyncio.sleep(arguments.down_s)
        finally:
            await node.start()


async def _collect(arguments: argparse.Namespace, folder: Path, port: int, nodes: Sequence[Node]) -> Sender:
    """Run collectors and the sender while nodes are killed."""
    names = ["collector", *(f"collector-{number}" for number in range(2, arguments.collectors + 1))]
    async with (
        Processes(folder / "logs") as processes,
        Database(folder / "outbox.db", {"outbox": Outbox.MIGRATIONS}) as database,
    ):
        await asyncio.to_thread(Store.open, arguments.dataset)
        for name in names:
            options = ("--dataset", arguments.dataset, "--broker", f"127.0.0.1:{port}")
            await processes.start(name, "cloud", "collect", "--name", name, *options)
        sender = Sender(port, database)
        killing = asyncio.create_task(_kill_in_turn(nodes, arguments, sender))
        try:
            await sender.run(arguments.per_s, arguments.seconds, killing.done)
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
    return sender


async def _run(arguments: argparse.Namespace, folder: Path) -> bool:
    async with (
        _nodes(arguments.store_node, folder, "store") as stores,
        _nodes(arguments.broker_node, folder, "broker") as brokers,
    ):
        with contextlib.ExitStack() as stack:
            if brokers:
                server = await asyncio.start_server(Forwarder(brokers).serve, "127.0.0.1", 0)
                port = server.sockets[0].getsockname()[1]
            else:
                port = stack.enter_context(local_broker(folder / "broker")).port
            sender = await _collect(arguments, folder, port, [*stores, *brokers])
        async with asyncio.timeout(_START_S):
            while stores and not is_listening(stores[0].port):  # noqa: ASYNC110  # as above
                await asyncio.sleep(_POLL_S)
        store = await asyncio.to_thread(Store.open, arguments.dataset)
        rows = Counter(str(row["photo_id"]) for row in store.scan(["photo_id"]))
    lost = [photo_id for photo_id in sender.sent if photo_id not in rows]
    doubled = [photo_id for photo_id, count in rows.items() if count > 1]
    print(f"sent {len(sender.sent)}, lost {len(lost)}, doubled {len(doubled)}")
    print(f"receipts {dict(sender.receipts)}, longest time without one {sender.longest_silence_s:.1f} s")
    return not (lost or doubled)


def main() -> int:
    """Run it and print the counts."""
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__)
    for name, text in (
        ("--broker-node", "a node of the broker; without, mosquitto"),
        ("--store-node", "a server of the object store of --dataset"),
    ):
        parser.add_argument(name, action="append", default=[], metavar="'PORT COMMAND'", help=text)
    parser.add_argument("--dataset", help="path or URL; a temporary folder if absent")
    parser.add_argument("--collectors", type=int, default=2)
    parser.add_argument("--per-s", type=float, default=300.0, help="samples per second")
    parser.add_argument("--seconds", type=float, default=60.0, help="shortest duration of sending")
    parser.add_argument("--kills", type=int, default=3, help="how many nodes are killed, one after the other")
    parser.add_argument(
        "--every-s", type=float, default=20.0, help="seconds from the first receipts to a kill"
    )
    parser.add_argument("--down-s", type=float, default=5.0, help="seconds until a killed node starts again")
    arguments = parser.parse_args()
    log.configure("error")
    with tempfile.TemporaryDirectory(prefix="gleaner-failover-") as folder:
        arguments.dataset = arguments.dataset or f"{folder}/dataset.lance"
        return 0 if asyncio.run(_run(arguments, Path(folder))) else 1


if __name__ == "__main__":
    raise SystemExit(main())
