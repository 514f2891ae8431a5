"""Kill the nodes of a broker or of an object store under load, and count samples lost and doubled.

    python -m bench.failover --gateway --console --broker-node "1884 artemis/a/bin/artemis run" …

Outboxes send samples at a steady rate and keep each until its receipt, as edges do; collectors are processes
of their own. In turn a node is killed with SIGKILL and started again, each time only after receipts have come
again, so that a slow machine makes the run longer and not endless. At the end every sample that was sent is
looked for in the dataset by its photo id.

With `--gateway` a fifth of the samples are of edges behind a gateway process, with a mosquitto of their own
and a stand-in for KubeEdge's Router between the two. With `--console` a console runs too, in this process,
with an open page; results and events are published twice a second, and looked for in its memory at the end.
"""

import argparse
import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bench.failover import nodes, watched_console
from bench.failover.nodes import POLL_S, START_S, Forwarder, Node
from bench.failover.sender import Sender
from bench.photos import NODE
from bus import log
from bus.broker.process import free_port, is_listening, local_broker
from bus.config import Broker
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from cloud.dataset.store import Store
from demo.processes import Processes
from tests.router import StandInRouter

_BEHIND = [f"edge-{number}" for number in range(2, 7)]
"""Edges behind the gateway."""
_SHARE_BEHIND = 0.2
"""Theirs of all samples. KubeEdge's Router takes 30 messages per second from each."""


async def _kill_in_turn(
    servers: Sequence[Node], arguments: argparse.Namespace, senders: Sequence[Sender]
) -> None:
    """Kill the listening nodes one after the other, as often as asked for."""
    turn = 0
    for _ in range(arguments.kills if servers else 0):
        received = [sender.receipts.total() for sender in senders]
        while any(  # noqa: ASYNC110  # until what was killed before is back, for all of them
            sender.receipts.total() == before for sender, before in zip(senders, received, strict=True)
        ):
            await asyncio.sleep(POLL_S)
        await asyncio.sleep(arguments.every_s)
        while not is_listening(
            servers[turn % len(servers)].port
        ):  # a passive one takes its turn when it is active
            turn += 1
            await asyncio.sleep(POLL_S)
        node = servers[turn % len(servers)]
        turn += 1
        print(f"kills the node at port {node.port}; {_receipts(senders).total()} receipts so far", flush=True)
        try:
            await node.kill()
            await asyncio.sleep(arguments.down_s)
        finally:
            await node.start()


def _receipts(senders: Sequence[Sender]) -> Counter[str]:
    return sum((sender.receipts for sender in senders), Counter())


@contextlib.asynccontextmanager
async def _behind_gateway(folder: Path, port: int, processes: Processes) -> AsyncIterator[Sender]:
    """Run a gateway, the stand-in for KubeEdge and a broker of its edges; yield their sender."""
    with local_broker(folder / "edges") as edges:
        listen = f"127.0.0.1:{free_port()}"
        router = StandInRouter({node: Broker(port=edges.port) for node in _BEHIND}, listen)
        async with (
            router.running(),
            Database(folder / "behind.db", {"outbox": Outbox.MIGRATIONS}) as database,
        ):
            options = ("--nodes", ",".join(_BEHIND), "--listen", listen, "--router", router.url)
            await processes.start("gateway", "gateway", *options, "--broker", f"127.0.0.1:{port}")
            async with asyncio.timeout(START_S):
                while not is_listening(int(listen.rpartition(":")[2])):  # noqa: ASYNC110  # of another process
                    await asyncio.sleep(POLL_S)
            yield Sender(edges.port, database, _BEHIND, as_text=True)


async def _collect(
    arguments: argparse.Namespace, folder: Path, port: int, servers: Sequence[Node]
) -> list[Sender]:
    """Run collectors, gateway, console and the senders while nodes are killed."""
    names = ["collector", *(f"collector-{number}" for number in range(2, arguments.collectors + 1))]
    async with contextlib.AsyncExitStack() as stack:
        processes = await stack.enter_async_context(Processes(folder / "logs"))
        database = await stack.enter_async_context(
            Database(folder / "outbox.db", {"outbox": Outbox.MIGRATIONS})
        )
        await asyncio.to_thread(Store.open, arguments.dataset)
        for name in names:
            options = ("--dataset", arguments.dataset, "--broker", f"127.0.0.1:{port}")
            await processes.start(name, "cloud", "collect", "--name", name, *options)
        senders = [Sender(port, database, [NODE])]
        if arguments.gateway:
            senders.append(await stack.enter_async_context(_behind_gateway(folder, port, processes)))
        if arguments.console:
            watched = watched_console.running(folder / "console", arguments.dataset, port)
            console = await stack.enter_async_context(watched)
        killing = asyncio.create_task(_kill_in_turn(servers, arguments, senders))
        publishing = []
        if arguments.console:
            publishing = [
                asyncio.create_task(console.publish_results(senders[0].bus)),
                asyncio.create_task(
                    console.publish_events(senders[-1].bus, (_BEHIND if arguments.gateway else [NODE])[0])
                ),
            ]
        try:
            shares = (1 - _SHARE_BEHIND, _SHARE_BEHIND) if arguments.gateway else (1.0,)
            async with asyncio.TaskGroup() as tasks:
                for sender, share in zip(senders, shares, strict=True):
                    tasks.create_task(sender.run(share * arguments.per_s, arguments.seconds, killing.done))
            for task in publishing:
                task.cancel()
            if arguments.console:
                for kind, shown in (await console.settled()).items():
                    print(
                        f"{kind}: {shown.published} published, {shown.known} at the console, "
                        f"its page told of none for {shown.longest_silence_s:.1f} s at most"
                    )
        finally:
            for task in (killing, *publishing):
                task.cancel()
            await asyncio.gather(killing, *publishing, return_exceptions=True)
    return senders


async def _run(arguments: argparse.Namespace, folder: Path) -> bool:
    async with (
        nodes.running(arguments.store_node, folder, "store") as stores,
        nodes.running(arguments.broker_node, folder, "broker") as brokers,
    ):
        with contextlib.ExitStack() as stack:
            if brokers:
                server = await asyncio.start_server(Forwarder(brokers).serve, "127.0.0.1", 0)
                port = server.sockets[0].getsockname()[1]
            else:
                port = stack.enter_context(local_broker(folder / "broker")).port
            senders = await _collect(arguments, folder, port, [*stores, *brokers])
        async with asyncio.timeout(START_S):
            while stores and not is_listening(stores[0].port):  # noqa: ASYNC110  # of others
                await asyncio.sleep(POLL_S)
        store = await asyncio.to_thread(Store.open, arguments.dataset)
        rows = Counter(str(row["photo_id"]) for row in store.scan(["photo_id"]))
    doubled = [photo_id for photo_id, count in rows.items() if count > 1]
    lost = 0
    for sender, of in zip(senders, ("direct", "behind the gateway"), strict=False):
        missing = sum(photo_id not in rows for photo_id in sender.sent)
        lost += missing
        print(
            f"{of}: sent {len(sender.sent)}, lost {missing}; receipts {dict(sender.receipts)}, "
            f"longest time without one {sender.longest_silence_s:.1f} s"
        )
    print(f"sent {sum(len(sender.sent) for sender in senders)}, lost {lost}, doubled {len(doubled)}")
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
    parser.add_argument("--gateway", action="store_true", help="a fifth of the samples come by a gateway")
    parser.add_argument("--console", action="store_true", help="with a console, results and events")
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
