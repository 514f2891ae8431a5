"""Server processes that are killed and started again, and one address for all of them."""

import asyncio
import contextlib
import itertools
import os
import shlex
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bus.broker.process import is_listening

START_S = 120.0
POLL_S = 0.2


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
async def running(words: Sequence[str], folder: Path, name: str) -> AsyncIterator[list[Node]]:
    """Run nodes, entered when a first one listens; of an active and passive ones the others never do."""
    nodes = [Node(text, folder / f"{name}-{number}.log") for number, text in enumerate(words)]
    try:
        for node in nodes:
            await node.start()
        async with asyncio.timeout(START_S):
            while nodes and not any(is_listening(node.port) for node in nodes):  # noqa: ASYNC110  # of others
                await asyncio.sleep(POLL_S)
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
