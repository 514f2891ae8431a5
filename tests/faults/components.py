"""The processes of a stack. Each has its own session and can be killed and restarted at any moment."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from bus.broker.process import BrokerProcess
from tests.conftest import ROOT
from tests.faults import acceptance
from tests.faults.crashing import STOP_S
from tests.faults.event_counter import EventCounter
from tests.faults.preload import Preload

_STOP_S = STOP_S - 1.0  # before the process gives up
_LINE_BYTES = 1 << 20
_QUOTED_LINES = 15
_FAILED = (1, 75)  # with a sentence: failed, and try again
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONFAULTHANDLER": "1"}


class Line(msgspec.Struct, frozen=True):
    """The fields of a printed result that are checked."""

    photo_id: str
    status: str
    label: str | None = None
    truth: str | None = None
    round_trip_ms: float | None = None


class Died(NamedTuple):
    """A process that ended without the laboratory's doing: its exit code and the last lines of its log."""

    name: str
    code: int
    log: Path

    def __str__(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-_QUOTED_LINES:]
        return "\n".join([f"{self.name}: exit code {self.code}, see {self.log}", *lines])


class Component(Protocol):
    """A process that keeps its name and ports through restarts."""

    name: str

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""

    async def start(self) -> None:
        """Start it."""

    async def kill(self) -> None:
        """Kill it, like a power cut."""

    async def stop(self) -> None:
        """Stop it with SIGTERM."""


def pause(component: Component) -> None:
    """Suspend a process; its connections stay open and get no answer."""
    if component.pid is not None:
        os.kill(component.pid, signal.SIGSTOP)


def resume(component: Component) -> None:
    """Resume a suspended process."""
    if component.pid is not None:
        os.kill(component.pid, signal.SIGCONT)


class Broker:
    """A mosquitto process as a component."""

    def __init__(self, name: str, process: BrokerProcess) -> None:
        self.name = name
        self.port = process.port
        self._process = process

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid

    async def start(self) -> None:
        """Start it and wait until it listens."""
        await asyncio.to_thread(self._process.start)

    async def kill(self) -> None:
        """Kill it."""
        await asyncio.to_thread(self._process.kill)

    async def stop(self) -> None:
        """Stop it: it saves sessions and messages."""
        await asyncio.to_thread(self._process.stop)


class Command:
    """A `gleaner` command.

    Args:
        name: Name of the component.
        folder: For its log.
        words: Subcommand and options.
        variant: Rule of the product to break; None for none.
        counter: Counts the final answers that it prints.
        preload: Faults of its disk and clock; None where they cannot be injected.
        died: Set when it ends without the laboratory's doing.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *words: str,
        variant: str | None,
        counter: EventCounter,
        preload: Preload | None = None,
        died: asyncio.Event | None = None,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.lines: list[Line] = []
        self.deaths: list[str] = []
        self.printed_at: list[float] = []
        """When each of the lines was printed, on the monotonic clock."""
        self.armed = self.stopping = False
        self.may_stop = False
        """Whether it may end early, because its disk fails."""
        self.accepted = folder / f"{name}.accepted"
        """What it accepted, if it is a device."""
        self.preload = preload
        self._died = died or asyncio.Event()
        self._words = words
        self._variant = variant
        self.counter = counter
        self._process: asyncio.subprocess.Process | None = None
        self._following: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    async def start(self, *more: str, at: str | None = None, nth: int = 1, stop: bool = False) -> None:
        """Start it without waiting until it is ready.

        Args:
            more: Further options for this run.
            at: Step of the protocol at which it kills itself.
            nth: At which call of that step.
            stop: Suspend there instead.
        """
        launcher = ["tests.faults.crashing"]
        if self._variant:
            launcher += ["--variant", self._variant]
        self.armed, self.stopping = at is not None, False
        if at:
            launcher += ["--at", at, "--nth", str(nth), *(["--stop"] if stop else [])]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *launcher, *self._words, *more,
                cwd=ROOT,
                env=os.environ | _ENVIRONMENT | self._own_environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_LINE_BYTES,
                start_new_session=True,
            )  # fmt: skip
        self._following = asyncio.create_task(self._follow(self._process), name=f"follow {self.name}")

    def _own_environment(self) -> dict[str, str]:
        preloaded = {} if self.preload is None else self.preload.environment
        return preloaded | (
            {acceptance.ENVIRONMENT: str(self.accepted)} if self._words[0] == "device" else {}
        )

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        """Read its output until it ends; record an exit that the test did not cause."""
        assert process.stdout is not None
        async for text in process.stdout:
            if not text.endswith(b"\n"):
                break  # killed while printing
            line = msgspec.json.decode(text, type=Line)
            if line.status != "deferred":
                self.lines.append(line)
                self.printed_at.append(time.monotonic())
                self.counter.add()
        code = await process.wait()
        if code not in {0, -signal.SIGKILL, -signal.SIGTERM} and not (self.may_stop and code in _FAILED):
            self.deaths.append(str(Died(self.name, code, self.log)))
            self._died.set()

    async def ended(self) -> int:
        """Wait until it ends and return its exit code."""
        assert self._process is not None
        code = await self._process.wait()
        await self._followed()
        return code

    async def stopped(self) -> None:
        """Wait until it has suspended itself."""
        while self.pid is None or _state(self.pid) != "T":  # noqa: ASYNC110  # /proc has no event
            await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """Kill it, like a power cut."""
        if self._process is not None and self.pid is not None:
            self._process.kill()
        await self._followed()

    async def stop(self) -> None:
        """Stop it with SIGTERM; if it does not end, SIGABRT makes it print its stacks."""
        if self._process is None or self.pid is None:
            return
        self.stopping = True
        self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._followed()
        except TimeoutError:
            self._process.send_signal(signal.SIGABRT)
            await self._followed()

    async def _followed(self) -> None:
        if self._following is not None:
            await asyncio.shield(self._following)  # a timeout must not stop the reading


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
