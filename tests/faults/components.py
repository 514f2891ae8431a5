"""The processes of a stack: each in a session of its own, ended at any moment and started again."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Protocol

import msgspec

from bus.broker.process import BrokerProcess
from tests.conftest import ROOT
from tests.faults.pulse import Pulse

_STOP_S = 9.0  # a second before it would give up by itself
_LINE_BYTES = 1 << 20
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONFAULTHANDLER": "1"}


class Line(msgspec.Struct, frozen=True):
    """What an agent prints of a result, as far as it is counted here."""

    photo_id: str
    status: str
    label: str | None = None
    truth: str | None = None


class Component(Protocol):
    """A process that keeps its name and its ports through restarts."""

    name: str

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""

    async def start(self) -> None:
        """Start it."""

    async def kill(self) -> None:
        """End it at once, as a power cut would."""

    async def stop(self) -> None:
        """End it in order."""


def pause(component: Component) -> None:
    """Stop a process where it stands; its connections stay open and nobody answers on them."""
    if component.pid is not None:
        os.kill(component.pid, signal.SIGSTOP)


def resume(component: Component) -> None:
    """Let a stopped process go on."""
    if component.pid is not None:
        os.kill(component.pid, signal.SIGCONT)


class Broker:
    """A mosquitto as a component."""

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
        """End it at once."""
        await asyncio.to_thread(self._process.kill)

    async def stop(self) -> None:
        """End it in order: it saves what it holds."""
        await asyncio.to_thread(self._process.stop)


class Command:
    """A `gleaner` command.

    Args:
        name: Of the component.
        folder: For its log.
        words: The subcommand and its options.
        variant: A rule of the product to break; none if None.
        pulse: Beats with each final answer that it prints.
    """

    def __init__(self, name: str, folder: Path, *words: str, variant: str | None, pulse: Pulse) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.lines: list[Line] = []
        self.deaths: list[str] = []
        self.armed = False
        self._words = words
        self._variant = variant
        self.pulse = pulse
        self._process: asyncio.subprocess.Process | None = None
        self._following: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    async def start(self, *more: str, at: str | None = None, nth: int = 1, stop: bool = False) -> None:
        """Start it, without waiting until it is ready.

        Args:
            more: Further options for this run.
            at: The step of the protocol at which it ends itself.
            nth: At which passing of it.
            stop: Stop there instead of dying.
        """
        launcher = ["tests.faults.crashing"] if at or self._variant else ["cli.main"]
        if self._variant:
            launcher += ["--variant", self._variant]
        self.armed = at is not None
        if at:
            launcher += ["--at", at, "--nth", str(nth), *(["--stop"] if stop else [])]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *launcher, *self._words, *more,
                cwd=ROOT,
                env=os.environ | _ENVIRONMENT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_LINE_BYTES,
                start_new_session=True,
            )  # fmt: skip
        self._following = asyncio.create_task(self._follow(self._process), name=f"follow {self.name}")

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        """Read what a run prints until it ends; a death that nobody ordered is written down."""
        assert process.stdout is not None
        async for text in process.stdout:
            if not text.endswith(b"\n"):
                break  # killed while it printed
            line = msgspec.json.decode(text, type=Line)
            if line.status != "deferred":
                self.lines.append(line)
                self.pulse.beat()
        code = await process.wait()
        if code not in {0, -signal.SIGKILL, -signal.SIGTERM}:
            self.deaths.append(f"{self.name}: exit code {code}, see {self.log}")

    async def ended(self) -> int:
        """Wait until it ends by itself and return its exit code."""
        assert self._process is not None
        code = await self._process.wait()
        await self._followed()
        return code

    async def stopped(self) -> None:
        """Wait until it has stopped itself."""
        while self.pid is None or _state(self.pid) != "T":  # noqa: ASYNC110  # /proc has no event
            await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None and self.pid is not None:
            self._process.kill()
        await self._followed()

    async def stop(self) -> None:
        """End it in order; one that does not end has to write down where it stands, and dies of that."""
        if self._process is None or self.pid is None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._followed()
        except TimeoutError:
            self._process.send_signal(signal.SIGABRT)
            await self._followed()

    async def _followed(self) -> None:
        if self._following is not None:
            await asyncio.shield(self._following)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
