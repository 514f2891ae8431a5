"""Rollout controller: carries out what `cloud/rollout/state_machine.py` decides, and persists the state.

A decision is on the disk before a node is sent its consequences. A restarted controller sends the current
assignments again; re-sending is idempotent at the edge.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog
from msgspec import structs

from bus.mqtt.client import Bus
from bus.mqtt.errors import UNPUBLISHED, BrokerConnectionError
from bus.mqtt.presence import now_ms
from bus.mqtt.publish_confirmed import publish_confirmed
from cloud.evaluation.audit_stats import RolloutAudits
from cloud.registry.rollout_state import Facts, Rollout, RolloutFile
from cloud.rollout.canary_analysis import pool_reports
from cloud.rollout.releases import later_than
from cloud.rollout.state_machine import (
    Assignment,
    Decision,
    NodeState,
    apply,
    assignments,
    current_reports,
    decide,
)
from cloud.rollout.steering import ROLLOUT_NAME, is_open, obey, with_order
from schemas.errors import CodecError, PermanentError, TransientError
from schemas.events import EventName
from schemas.field_types import MAX_TEXT_CHARS
from schemas.messages import CanaryReport, Event, Release, Steering
from schemas.topics import CLOUD, EVENT, RELEASE, STATUS, STEERING

log = structlog.get_logger()

NAME = ROLLOUT_NAME
_POLL_S = 1.0
_AUDIT_POLL_S = 30.0
_EVENTS = {
    "running": EventName.ROLLOUT_STAGE,
    "returned": EventName.ROLLOUT_RETURNED,
    "finished": EventName.ROLLOUT_FINISHED,
}


class Controller:
    """Runs one rollout to its end.

    Args:
        bus: Connected by its own `run`; the subscriptions are made here, before that.
        file: The rollout's state file; it exists.
        sign: Signs a release, or returns it unsigned.
        audits: Reads the audits; blocking, so it is called in a thread.
        on_decision: Called with the new state and each decision except `wait`, once it is on the disk.
    """

    def __init__(
        self,
        bus: Bus,
        file: RolloutFile,
        *,
        sign: Callable[[Release], Release],
        audits: Callable[[Rollout], RolloutAudits],
        on_decision: Callable[[Rollout, Decision], None] = lambda *_: None,
    ) -> None:
        self._bus = bus
        self._file = file
        self._sign = sign
        self._read_audits = audits
        self._on_decision = on_decision
        self._echoes = bus.subscribe(RELEASE)
        self._statuses = bus.subscribe(STATUS, name="edge")
        self._events = bus.subscribe(EVENT, name="edge")
        self._orders = bus.subscribe(STEERING, node=CLOUD, name=NAME)
        self._order: Steering | None = None
        self._nodes: dict[str, NodeState] = {}
        self._audits = RolloutAudits()
        self._audits_read = asyncio.Event()
        self._sent: dict[str, Assignment] = {}
        self._retained: dict[str, Release] = {}
        self._reported: CanaryReport | None = None

    async def run(self) -> Rollout:
        """Run until every node serves the version, or it is rolled back; return the final state.

        Safe to cancel and to kill: the next run continues from the file.

        Raises:
            PermanentError: The file does not exist, or is not a rollout's state.
        """
        rollout = await asyncio.to_thread(self._file.read)
        if rollout is None:
            raise PermanentError(f"no rollout state at {self._file.path}")
        async with asyncio.TaskGroup() as tasks:
            listeners = [
                tasks.create_task(self._collect_statuses(), name="rollout.statuses"),
                tasks.create_task(self._collect_failures(rollout.challenger.version), name="rollout.events"),
                tasks.create_task(self._collect_orders(), name="rollout.orders"),
                tasks.create_task(self._poll_audits(rollout), name="rollout.audits"),
            ]
            ended = await self._advance(rollout)
            for task in listeners:
                task.cancel()
        return ended

    async def _advance(self, rollout: Rollout) -> Rollout:
        await self._bus.connected()
        listening_since_ms = now_ms()
        # Time for retained statuses: they show which nodes are at the current step.
        await asyncio.sleep(_POLL_S)
        self._read_retained()
        await self._send_assignments(rollout)
        await self._publish_event(rollout, _EVENTS[rollout.phase], "", {})
        # After a restart the bake time may be over: without the audits the first decision would end it.
        await self._audits_read.wait()
        while rollout.phase == "running":
            await self._report(rollout)
            order = self._order
            if order is not None and is_open(rollout, order):
                rollout = await self._steer(rollout, order)
                continue
            decision = decide(rollout, self._nodes, self._audits, now_ms(), listening_since_ms)
            if decision.action == "wait":
                log.debug("rollout.waiting", reason=decision.reason)
                await asyncio.sleep(_POLL_S)
                continue
            rollout = await self._carry_out(apply(rollout, decision, now_ms()), decision)
            await self._publish_event(rollout, _EVENTS[rollout.phase], decision.reason, decision.facts)
        # Until this is saved, a restarted controller sends the outcome again.
        await self._save(structs.replace(rollout, announced=True))
        return rollout

    async def _carry_out(self, rollout: Rollout, decision: Decision) -> Rollout:
        await self._save(rollout)  # before any node is sent it: a restart must not decide otherwise
        self._on_decision(rollout, decision)
        await self._send_assignments(rollout)
        return rollout

    async def _steer(self, rollout: Rollout, order: Steering) -> Rollout:
        """Carry out an operator's order and publish that as an Event."""
        decision = obey(order, current_reports(rollout, self._nodes))
        # One write for both: an order is never carried out twice, nor noted and not carried out.
        steered = with_order(apply(rollout, decision, now_ms()), order)
        steered = await self._carry_out(steered, decision)
        events = [EventName.ROLLOUT_STEERED]
        if order.action in {"roll-back", "promote"}:
            events.append(_EVENTS[steered.phase])
        for event in events:
            await self._publish_event(steered, event, decision.reason, decision.facts)
        return steered

    async def _save(self, rollout: Rollout) -> None:
        await asyncio.to_thread(self._file.write, rollout)

    def _read_retained(self) -> None:
        """Note the retained releases, than which those of this controller have to be later."""
        while not self._echoes.queue.empty():
            delivery = self._echoes.queue.get_nowait()
            delivery.ack()
            with suppress(CodecError):
                release = delivery.message()
                self._retained[release.node] = release

    async def _send_assignments(self, rollout: Rollout) -> None:
        """Publish each assignment that this run has not sent, retained for nodes that are offline."""
        # Skip nodes already at this step: a second release would reset their counters.
        ready = current_reports(rollout, self._nodes)
        for node, assignment in assignments(rollout).items():
            if self._sent.get(node) == assignment or node in ready:
                continue
            # A failure or refusal of an earlier release does not count for this one.
            self._nodes[node] = NodeState(self._nodes.get(node, NodeState()).status)
            release = later_than(_release(rollout, node, assignment), self._retained.get(node))
            await self._publish_release(release)
            self._retained[node] = release
            self._sent[node] = assignment

    async def _publish_release(self, release: Release) -> None:
        """Publish until the broker has it; safe to cancel."""
        node = release.node
        while True:
            try:
                await publish_confirmed(self._bus, self._echoes, RELEASE, self._sign(release), node=node)
            except BrokerConnectionError as error:
                log.warning("rollout.announcement_failed", node=node, error=str(error))
                await asyncio.sleep(_POLL_S)
                await self._bus.connected()
            else:
                log.info("rollout.announced", node=node, version=release.version, stage=release.stage)
                return

    async def _publish_event(self, rollout: Rollout, event: EventName, reason: str, facts: Facts) -> None:
        message = Event(
            node=CLOUD,
            name=NAME,
            event=event,
            at_ms=now_ms(),
            reason=(rollout.reason or reason)[:MAX_TEXT_CHARS] or None,
            facts=facts
            | {
                "version": rollout.challenger.version,
                "champion": rollout.champion.version,
                "began_ms": rollout.began_ms,
                "group": rollout.group + 1,
                "stage": rollout.current_step.stage,
                "share": rollout.current_step.share,
            },
        )
        log.info(event, reason=message.reason, **message.facts)
        with suppress(*UNPUBLISHED):  # an event is best effort: the file and the log have it too
            await self._bus.publish(EVENT, message, node=CLOUD, name=NAME)

    async def _report(self, rollout: Rollout) -> None:
        """Put the current step's figures, pooled over its nodes, into this controller's Status."""
        report = pool_reports(current_reports(rollout, self._nodes).values())
        if report != self._reported:
            self._reported = report
            await self._bus.report(canary=report)

    async def _collect_statuses(self) -> None:
        async for delivery in self._statuses:
            delivery.ack()
            with suppress(CodecError):
                status = delivery.message()
                self._nodes[status.node] = self._nodes.get(status.node, NodeState())._replace(status=status)

    async def _collect_orders(self) -> None:
        async for delivery in self._orders:
            delivery.ack()
            with suppress(CodecError):
                self._order = delivery.message()  # retained: the newest replaces those before it

    async def _collect_failures(self, version: int) -> None:
        async for delivery in self._events:
            delivery.ack()
            with suppress(CodecError):
                event = delivery.message()
                if event.facts.get("version", version) != version:
                    continue
                before, reason = self._nodes.get(event.node, NodeState()), event.reason or "no reason"
                if event.event == EventName.MODEL_FAILED:
                    self._nodes[event.node] = before._replace(failure=reason)
                elif event.event == EventName.MODEL_REFUSED:
                    self._nodes[event.node] = before._replace(refusal=reason)

    async def _poll_audits(self, rollout: Rollout) -> None:
        while True:
            try:
                self._audits = await asyncio.to_thread(self._read_audits, rollout)
            except TransientError as error:
                log.warning("rollout.audits_unavailable", error=str(error))
            self._audits_read.set()
            await asyncio.sleep(_AUDIT_POLL_S)


def _release(rollout: Rollout, node: str, assignment: Assignment) -> Release:
    """Return the unsigned release that gives a node its assignment."""
    return structs.replace(
        assignment.release,
        node=node,
        stage=assignment.stage,
        share=assignment.share,
        baseline=None if assignment.stage == "all" else rollout.champion.version,
        # Not before the step began, even if the clock was set back: the edge's counts are dated by it.
        released_at_ms=max(now_ms(), rollout.since_ms),
        signature=None,
    )
