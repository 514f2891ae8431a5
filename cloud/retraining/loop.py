"""The retraining loop: runs rounds (teach, train, release, tune), one at a time, and publishes events.

Each step runs in a child process (`cloud/retraining/worker.py`). All state is on disk: after a restart,
dataset and registry show which work is left.
"""

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import structlog
from msgspec import structs

from bus.health import HealthServer
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence, now_ms
from bus.mqtt.retry import retry_until_ok
from bus.mqtt.session import connected
from bus.observability import metric_catalogue as catalogue
from bus.observability.exposition import Exposition
from bus.observability.measurements import Measurement, certificate_measurements
from cloud.dataset.store import Store
from cloud.evaluation.live_accuracy import told_accuracies
from cloud.labeling.review_queue import count_uncertain
from cloud.registry.model_card import Card
from cloud.registry.registry import Registry, RoundRunningError, is_promoted, newest_promoted
from cloud.retraining.announced import DriftWatch, read_announced, write_announced
from cloud.retraining.config import TrainerConfig
from cloud.retraining.signals import drift_signals, with_alarm
from cloud.retraining.step_process import run_in_process
from cloud.retraining.steps import Step, release_step, training_steps, tuning_step
from cloud.retraining.triggers import DriftAlarm, Reason, decide, labels_missing
from schemas.errors import PermanentError
from schemas.events import EventName
from schemas.field_types import MAX_TEXT_CHARS
from schemas.messages import Event
from schemas.topics import CLOUD, EVENT

log = structlog.get_logger()

WORKER = (sys.executable, "-P", "-m", "gleaner.module", "cloud.retraining.worker")
"""Command that runs one step."""
_FAILURES = (EventName.ROUND_FAILED, EventName.RELEASE_FAILED, EventName.POLICY_FAILED)


class RetrainingLoop:
    """Runs rounds and publishes their events.

    Args:
        config: Names, places and rules.
        bus: Connected by its own `run`.
        store: The dataset.
        worker: Command that runs the step on its standard input.
    """

    def __init__(self, config: TrainerConfig, bus: Bus, store: Store, worker: Sequence[str] = WORKER) -> None:
        self._config = config
        self._bus = bus
        self._store = store
        self._worker = worker
        self._registry = Registry(config.models)
        self._failed_at: float | None = None
        self._rollout_interrupted = True  # unknown at start-up: look for an interrupted rollout
        self._last_failure = ""
        self._drift = DriftWatch(store, config.triggers)
        self._alarm: DriftAlarm | None = None
        self._missing: int | None = None
        self._awaiting_label = 0
        self._accuracies: Mapping[str, float] = {}
        self._wanted = ""

    async def run(self) -> None:
        """Run a round whenever there is a reason, until cancelled.

        Safe to cancel: the running step is ended, and the next loop finds the same reason again.
        """
        while True:
            if self._rollout_interrupted:
                await self._continue_rollout()
            # A look without the lock first: most looks find no reason, and other trainers look too.
            if await self._reason() is not None:
                try:
                    with self._registry.round_lock() as lock:
                        # Another trainer may have held the lock until now and have dealt with that reason.
                        if (reason := await self._reason()) is not None:
                            await self.run_round(reason, lock)
                except RoundRunningError as error:
                    log.debug("round.deferred", error=str(error))
            else:
                if self._alarm is not None:
                    await self._announce(self._alarm)
                await self._ask_for_labels()
            await asyncio.sleep(self._config.every_s)

    def measurements(self) -> Iterator[Measurement]:
        """Yield what the newest look found; nothing before the first."""
        if (missing := self._missing) is not None:
            yield Measurement(catalogue.LABELS_MISSING, missing)
            yield Measurement(catalogue.AWAITING_LABEL, self._awaiting_label)
            yield Measurement(catalogue.DRIFT_ALARM, int(self._alarm is not None))
            for devices, accuracy in self._accuracies.items():
                yield Measurement(catalogue.AUDIT_ACCURACY, round(accuracy, 6), (devices,))

    async def _announce(self, alarm: DriftAlarm) -> None:
        """Publish a drift alarm once, and raise the audit share, which is retried at each look."""
        newest = (await asyncio.to_thread(self._registry.cards))[-1]
        announced = await asyncio.to_thread(read_announced, self._registry)
        known = announced.includes(alarm, newest.version)
        if known and announced.raised:
            return
        try:
            with self._registry.round_lock() as lock:
                if not known:
                    facts = {"p_value": alarm.p_value, "photos": alarm.photos}
                    await self._publish(EventName.DRIFT_DETECTED, alarm.words, **facts)
                    announced = announced.after(alarm, newest.version, raised=False)
                    await asyncio.to_thread(write_announced, self._registry, announced)
                if await self._raise_audits(newest, lock):
                    done = announced.after(alarm, newest.version, raised=True)
                    await asyncio.to_thread(write_announced, self._registry, done)
        except RoundRunningError as error:
            log.debug("round.deferred", error=str(error))

    async def _ask_for_labels(self) -> None:
        """Publish once for each version that labels are wanted, when enough photos wait for one."""
        missing, awaiting = self._missing or 0, self._awaiting_label
        if not 0 < missing <= awaiting:
            return
        cards = await asyncio.to_thread(self._registry.cards)
        newest = cards[-1].version if cards else 0
        if (await asyncio.to_thread(read_announced, self._registry)).asked >= newest:
            return
        try:
            with self._registry.round_lock():
                words = f"{self._wanted} are missing until the next training; {awaiting} photos wait for one"
                await self._publish(EventName.LABELS_WANTED, words, missing=missing, awaiting=awaiting)
                announced = await asyncio.to_thread(read_announced, self._registry)
                asked = structs.replace(announced, asked=newest)
                await asyncio.to_thread(write_announced, self._registry, asked)
        except RoundRunningError as error:
            log.debug("round.deferred", error=str(error))

    async def _raise_audits(self, card: Card, lock: int) -> bool:
        """Raise the audit share of the released nodes; return whether it succeeded."""
        step = tuning_step(self._config, audit_share=self._config.triggers.drift_audit_share)
        timeout_s = self._config.step_timeout_s
        return step is None or await self._follow_up(
            step, card, lock, failed=EventName.POLICY_FAILED, timeout_s=timeout_s
        )

    async def run_round(self, reason: Reason, lock: int) -> Card | None:
        """Run one round.

        Args:
            reason: Why it runs.
            lock: Descriptor of `Registry.round_lock`, which the steps inherit.

        Returns:
            The card of the new version; None after a failure, which is published as an event.
        """
        began = time.monotonic()
        await self._publish(EventName.ROUND_STARTED, reason.words, trigger=reason.trigger, **reason.facts)
        try:
            card = await self._train(lock)
        except (PermanentError, OSError) as error:
            self._failed_at = time.monotonic()  # the wall clock may be set during the pause
            self._bus.counters.add("round.failed")
            await self._publish(EventName.ROUND_FAILED, str(error), trigger=reason.trigger)
            return None
        self._failed_at = None
        self._bus.counters.add("round.finished")
        took_s = round(time.monotonic() - began, 1)
        await self._publish(EventName.ROUND_FINISHED, _verdict(card), **_figures(card), took_s=took_s)
        if is_promoted(card):
            await self._release(card, lock)
        if (step := tuning_step(self._config)) is not None:
            timeout_s = self._config.step_timeout_s
            await self._follow_up(step, card, lock, failed=EventName.POLICY_FAILED, timeout_s=timeout_s)
        return card

    async def _train(self, lock: int) -> Card:
        """Run the steps up to the new version and return its card.

        Raises:
            PermanentError: A step failed, or made no version.
            OSError: A step cannot be started.
        """
        # In threads: reading files would block the keepalive of the broker connection and the health probes.
        before = await asyncio.to_thread(self._registry.cards)
        self._registry.round_log.write_bytes(b"")  # the log is of this round; rollouts continued later append
        failure: PermanentError | OSError | None = None
        try:
            for step in training_steps(self._config):
                await self._run_step(step, lock, self._config.step_timeout_s)
        except (PermanentError, OSError) as error:
            failure = error
        after = await asyncio.to_thread(self._registry.cards)
        if failure is not None:
            if len(after) == len(before):
                raise failure
            # The version is complete: what failed came after it, and no later round would release it.
            log.warning("round.step_failed_late", version=after[-1].version, reason=str(failure))
        # A worker exits with 0 without a version if it only helps the first one of a distributed training.
        if len(after) == len(before):
            raise PermanentError(f"the training made no version in {self._registry.folder}")
        return after[-1]

    async def _continue_rollout(self) -> None:
        """Continue a rollout that was interrupted by a restart or by a failure, unless a round is running."""
        card = newest_promoted(await asyncio.to_thread(self._registry.cards))
        if card is None or card.parent is None:  # a version without a parent goes out at once, without stages
            self._rollout_interrupted = False
            return
        try:
            with self._registry.round_lock() as lock:
                await self._release(card, lock)
        except RoundRunningError as error:
            log.debug("round.deferred", error=str(error))

    async def _release(self, card: Card, lock: int) -> None:
        """Bring a version out, without a time limit: a rollout waits for photos and for nodes."""
        step = release_step(self._config, card)
        succeeded = step is None or await self._follow_up(
            step, card, lock, failed=EventName.RELEASE_FAILED, timeout_s=None
        )
        # Retried at each look until it succeeds, for example while the broker is away.
        self._rollout_interrupted = not succeeded

    async def _follow_up(
        self, step: Step, card: Card, lock: int, *, failed: EventName, timeout_s: float | None
    ) -> bool:
        """Run a step after the training; its failure does not fail the round.

        Returns:
            Whether it succeeded.
        """
        try:
            await self._run_step(step, lock, timeout_s)
        except (PermanentError, OSError) as error:
            failure = f"{failed} {card.version} {error}"
            # An interrupted rollout is retried at each look: only a new reason is an event.
            if failure != self._last_failure:
                await self._publish(failed, str(error), version=card.version)
            self._last_failure = failure
            return False
        self._last_failure = ""
        return True

    async def _run_step(self, step: Step, lock: int, timeout_s: float | None) -> None:
        log.info("round.step", step=str(step.__struct_config__.tag), output=str(self._registry.round_log))
        await run_in_process(
            self._worker, step, inherit=lock, output=self._registry.round_log, timeout_s=timeout_s
        )

    async def _reason(self) -> Reason | None:
        return await retry_until_ok(self._bus, "dataset", partial(asyncio.to_thread, self._look))

    def _look(self) -> Reason | None:
        cards = self._registry.cards()
        self._alarm = self._drift.look(cards)
        facts = drift_signals(self._store, cards, self._config.triggers)
        facts = with_alarm(self._store, facts, self._alarm)
        self._missing = labels_missing(facts, self._config.triggers)
        self._wanted = f"{self._missing} labels" if facts.trainable else "labels of at least two classes"
        self._awaiting_label = count_uncertain(self._store)
        serving = newest_promoted(cards)
        self._accuracies = {} if serving is None else told_accuracies(self._store, serving.version)
        if self._failed_at is not None:
            # A failed round leaves no card that would start the pause.
            since_s = time.monotonic() - self._failed_at
            facts = replace(facts, last_round_s=min(since_s, facts.last_round_s or since_s))
        return decide(facts, self._config.triggers)

    async def _publish(self, event: EventName, reason: str, **facts: str | float | bool) -> None:
        """Publish an event; waits for the broker."""
        level = log.error if event in _FAILURES else log.info
        level(event, reason=reason, **facts)  # also when the broker is away
        message = Event(
            node=CLOUD,
            name=self._config.name,
            event=event,
            at_ms=now_ms(),
            reason=reason[:MAX_TEXT_CHARS],  # the last line of a step may be longer than the contract allows
            facts=facts,
        )
        # Retried: events are not retained, and this one would be lost.
        publish = partial(self._bus.publish, EVENT, message, node=CLOUD, name=self._config.name)
        await retry_until_ok(self._bus, "broker", publish)


def _verdict(card: Card) -> str:
    if card.verdict is None:
        return f"version {card.version}: no champion to beat"
    return f"version {card.version}: {card.verdict.decision}: {'; '.join(card.verdict.reasons)}"


def _figures(card: Card) -> dict[str, str | float]:
    figures: dict[str, str | float] = {"version": card.version, "chosen": card.chosen}
    if card.verdict is not None:
        figures["decision"] = card.verdict.decision
    if card.metrics is not None:
        figures["gold_accuracy"] = card.metrics.accuracy
    return figures


async def run_loop(
    config: TrainerConfig, password: str | None = None, worker: Sequence[str] = WORKER
) -> None:
    """Run a trainer until cancelled.

    Args:
        config: Names, places and rules.
        password: For the broker's user name.
        worker: Command that runs the step on its standard input.

    Raises:
        PermanentError: The dataset does not exist, or the broker refuses the connection.
    """
    store = await asyncio.to_thread(partial(Store.open, config.dataset, create=False))
    # A fixed client id: a second trainer of the same name would take over the connection of the first one.
    bus = Bus(
        config.broker,
        f"gleaner-cloud-{config.name}",
        password=password,
        presence=Presence(CLOUD, config.name, dataset=store.location),
    )
    loop = RetrainingLoop(config, bus, store, worker)
    async with asyncio.TaskGroup() as tasks:
        if config.probes is not None:
            metrics = Exposition(
                "trainer", bus, loop.measurements, partial(certificate_measurements, config.broker)
            )
            health = HealthServer(config.probes, bus.unready_reason, metrics.page)
            tasks.create_task(health.run(), name="trainer.probes")
        tasks.create_task(bus.run(), name="trainer.bus")
        tasks.create_task(loop.run(), name="trainer.loop")


async def run_one_round(
    config: TrainerConfig, password: str | None = None, worker: Sequence[str] = WORKER
) -> Card:
    """Run one round now. Cancelling ends the running step.

    Args:
        config: Names, places and rules.
        password: For the broker's user name.
        worker: Command that runs the step on its standard input.

    Returns:
        The card of the new version.

    Raises:
        RoundRunningError: Another round is running.
        BrokerConnectionError: The broker for the events does not answer.
        PermanentError: The dataset does not exist, or the round failed.
    """
    store = await asyncio.to_thread(partial(Store.open, config.dataset, create=False))
    bus = Bus(config.broker, transient_client_id("round"), password=password)
    registry = Registry(config.models)
    # The lock before the connection: a refused round publishes nothing.
    with registry.round_lock() as lock:
        async with connected(bus, config.broker):
            reason = Reason("hand", "by hand")
            card = await RetrainingLoop(config, bus, store, worker).run_round(reason, lock)
    if card is None:
        raise PermanentError("the round failed", hint=f"see {registry.round_log}")
    return card
