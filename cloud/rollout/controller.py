"""Rollout controller: send nodes what `cloud/rollout/state_machine.py` decides, and persist its state.

What is decided is on the disk before any node hears of it. A controller that was killed says everything that
holds once more: an edge to which it is no news changes nothing.
"""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import structlog
from msgspec import structs

from bus.mqtt.client import Bus
from bus.mqtt.connection import BrokerConnectionError
from bus.mqtt.presence import now_ms
from bus.mqtt.publish_confirmed import publish_confirmed
from cloud.evaluation.audit_stats import Audits
from cloud.rollout.canary_analysis import Facts, pooled
from cloud.rollout.state_machine import Decision, Order, Rollout, Seen, apply, decide, orders, present_trials
from schemas.errors import CodecError, PermanentError, TransientError
from schemas.messages import CanaryReport, Event, Release
from schemas.topics import CLOUD, EVENT, RELEASE, STATUS

log = structlog.get_logger()

NAME = "rollout"
_LOCK = ".rollout.lock"
_LOOK_S = 1.0
_AUDIT_S = 30.0
_FAILURES = ("model.failed", "model.refused")
_EVENTS = {"running": "rollout.stage", "returned": "rollout.returned", "finished": "rollout.finished"}


def read(path: Path) -> Rollout | None:
    """Return the rollout that a file keeps, None if there is no such file.

    Raises:
        PermanentError: It holds something else.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Rollout)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise PermanentError(f"rollout {path}", expected="a rollout's state", got=error) from None


def write(path: Path, rollout: Rollout) -> None:
    """Keep a rollout in a file: the old state or the new one, also when the power fails."""
    partial = path.with_suffix(".tmp")
    with partial.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(rollout), indent=2))
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let nobody else bring out a version for the length of a block.

    There is one lock in a folder, whatever the version: two rollouts would undo each other's stages.

    Args:
        path: The file that keeps the rollout; its folder has the lock.

    Raises:
        TransientError: Somebody else does; it says who.
    """
    with (path.parent / _LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            got = file.read() or "another"
            raise TransientError(path.stem, expected="no rollout under way", got=got) from None
        file.truncate(0)
        file.write(f"{path.stem} (process {os.getpid()})")
        file.flush()
        yield


class Controller:
    """Brings one rollout to its end.

    Args:
        bus: Connected by its own `run`; the subscriptions are made here, before that.
        path: The file that keeps the rollout; it exists.
        sign: Makes a release one that the nodes believe.
        audits: Reads the audits; blocking, called in a thread.
        told: Called with each decision that is more than to wait, after it is on the disk.
    """

    def __init__(
        self,
        bus: Bus,
        path: Path,
        *,
        sign: Callable[[Release], Release],
        audits: Callable[[Rollout], Audits],
        told: Callable[[Rollout, Decision], None] = lambda *_: None,
    ) -> None:
        self._bus = bus
        self._path = path
        self._sign = sign
        self._audits = audits
        self._told = told
        self._echoes = bus.subscribe(RELEASE)
        self._statuses = bus.subscribe(STATUS, name="edge")
        self._events = bus.subscribe(EVENT, name="edge")
        self._seen: dict[str, Seen] = {}
        self._audited = Audits()
        self._asked = asyncio.Event()
        self._announced: dict[str, Order] = {}
        self._reported: CanaryReport | None = None

    async def run(self) -> Rollout:
        """Go on until the version is everywhere or has gone back; returns how it ended.

        Safe to cancel and to kill: the next run goes on from the file.

        Raises:
            PermanentError: The file holds no rollout.
        """
        rollout = await asyncio.to_thread(read, self._path)
        if rollout is None:
            raise PermanentError(f"rollout {self._path}", expected="a file", got="none")
        async with asyncio.TaskGroup() as tasks:
            listening = [
                tasks.create_task(self._hear_statuses(), name="rollout.statuses"),
                tasks.create_task(self._hear_events(rollout.challenger.version), name="rollout.events"),
                tasks.create_task(self._read_audits(rollout), name="rollout.audits"),
            ]
            ended = await self._advance(rollout)
            for task in listening:
                task.cancel()
        return ended

    async def _advance(self, rollout: Rollout) -> Rollout:
        await self._bus.connected()
        began_ms = now_ms()
        await asyncio.sleep(_LOOK_S)  # for the retained statuses: who is at the present step already
        await self._announce(rollout)
        await self._tell(rollout, "", {})
        await self._asked.wait()  # a watch that is over by now ends with the first decision
        while rollout.phase == "running":
            await self._report(rollout)
            decision = decide(rollout, self._seen, self._audited, now_ms(), began_ms)
            if decision.action == "wait":
                log.debug("rollout.waits", reason=decision.reason)
                await asyncio.sleep(_LOOK_S)
                continue
            rollout = apply(rollout, decision, now_ms())
            await self._keep(rollout)
            self._told(rollout, decision)
            await self._announce(rollout)
            await self._tell(rollout, decision.reason, decision.facts)
        await self._keep(structs.replace(rollout, over=True))
        return rollout

    async def _keep(self, rollout: Rollout) -> None:
        await asyncio.to_thread(write, self._path, rollout)

    async def _announce(self, rollout: Rollout) -> None:
        """Publish each order that this run has not published yet, retained for nodes that are away.

        To a node that is at the present step already, by an earlier run's word, it would begin anew.
        """
        there = present_trials(rollout, self._seen)
        for node, order in orders(rollout).items():
            if self._announced.get(node) == order or node in there:
                continue
            release = structs.replace(
                order.release,
                node=node,
                stage=order.stage,
                share=order.share,
                baseline=None if order.stage == "all" else rollout.champion.version,
                released_at_ms=max(now_ms(), rollout.since_ms),
                signature=None,
            )
            self._seen[node] = Seen(self._seen.get(node, Seen()).status)  # what it says of this one counts
            while True:
                try:
                    signed = self._sign(release)
                    await publish_confirmed(self._bus, self._echoes, RELEASE, signed, node=node)
                    break
                except BrokerConnectionError as error:
                    log.warning("rollout.not_announced", node=node, error=str(error))
                    await asyncio.sleep(_LOOK_S)
                    await self._bus.connected()
            self._announced[node] = order
            log.info("rollout.announced", node=node, version=release.version, stage=order.stage)

    async def _tell(self, rollout: Rollout, reason: str, facts: Facts) -> None:
        event = Event(
            node=CLOUD,
            name=NAME,
            event=_EVENTS[rollout.phase],
            at_ms=now_ms(),
            reason=(rollout.reason or reason)[:1024] or None,
            facts=facts
            | {
                "version": rollout.challenger.version,
                "champion": rollout.champion.version,
                "group": rollout.group + 1,
                "stage": rollout.present.stage,
                "share": rollout.present.share,
            },
        )
        log.info(event.event, reason=event.reason, **event.facts)
        with suppress(BrokerConnectionError):  # the file and the log say it too
            await self._bus.publish(EVENT, event, node=CLOUD, name=NAME)

    async def _report(self, rollout: Rollout) -> None:
        """Say in the Status how the present stage goes, all its nodes together."""
        trial = pooled(present_trials(rollout, self._seen).values())
        if trial != self._reported:
            self._reported = trial
            await self._bus.report(canary=trial)

    async def _hear_statuses(self) -> None:
        async for delivery in self._statuses:
            delivery.ack()
            with suppress(CodecError):
                status = delivery.message()
                self._seen[status.node] = self._seen.get(status.node, Seen())._replace(status=status)

    async def _hear_events(self, version: int) -> None:
        async for delivery in self._events:
            delivery.ack()
            with suppress(CodecError):
                event = delivery.message()
                if event.event not in _FAILURES or event.facts.get("version", version) != version:
                    continue
                before, reason = self._seen.get(event.node, Seen()), event.reason or "no reason"
                failed = event.event == "model.failed"
                self._seen[event.node] = (
                    before._replace(failure=reason) if failed else before._replace(refusal=reason)
                )

    async def _read_audits(self, rollout: Rollout) -> None:
        while True:
            try:
                self._audited = await asyncio.to_thread(self._audits, rollout)
            except TransientError as error:
                log.warning("rollout.no_audits", error=str(error))
            self._asked.set()
            await asyncio.sleep(_AUDIT_S)
