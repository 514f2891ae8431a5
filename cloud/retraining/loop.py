"""The trainer: starts rounds (teach, train, release what may serve, tune), never two, and tells of them.

What a round is made of are programs, run one after the other: a training may take all the memory there is
and die of it, while the connection to the broker lives on. Nothing is remembered but on the disk: after a
restart the dataset and the cards say what there is to do.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import structlog

from bus.health import HealthServer
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.connection import BrokerConnectionError
from bus.mqtt.presence import Presence, now_ms
from bus.mqtt.retry import retry_until_ok
from cloud.dataset.store import Store
from cloud.registry.model_card import Card
from cloud.registry.registry import cards_in, is_promoted, served
from cloud.retraining.config import TrainerConfig
from cloud.retraining.lock import BusyError, one_at_a_time
from cloud.retraining.signals import observe
from cloud.retraining.triggers import Reason, decide
from schemas.errors import PermanentError
from schemas.messages import Event
from schemas.topics import CLOUD, EVENT

log = structlog.get_logger()

Program: TypeAlias = Sequence[str]

LOG = ".round.log"
"""What the programs of the last round printed, in the folder of the models."""
_TAIL_BYTES = 4096
_REASON_LENGTH = 1024
_FAREWELL_S = 5.0
_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a round runs.

    Attributes:
        steps: programs that end with a new version in the folder of the models.
        release: from a version to the program that hands it over; None if nobody does. For a version with a
            parent it goes on where it was broken off, and does nothing if it had ended.
        tune: program that follows each new version, promoted or not; None if there is none.
    """

    steps: Sequence[Program]
    release: Callable[[Card], Program] | None = None
    tune: Program | None = None


class Trainer:
    """Starts rounds and tells of them.

    Args:
        config: Names, places and rules.
        bus: Connected by its own `run`.
        store: The dataset.
        plan: What a round runs.
    """

    def __init__(self, config: TrainerConfig, bus: Bus, store: Store, plan: Plan) -> None:
        self._config = config
        self._bus = bus
        self._store = store
        self._plan = plan
        self._models = Path(config.models)
        self._failed_at: float | None = None
        self._broken_off = True  # for all that this trainer knows
        self._failure = ""

    async def watch(self) -> None:
        """Start a round whenever there is a reason, until cancelled. Safe to cancel: a round starts again."""
        while True:
            if self._broken_off:
                await self._go_on()
            if await self._reason() is not None:
                try:
                    with one_at_a_time(self._models) as lock:
                        # Whoever held the lock until now may have seen to that reason.
                        if (reason := await self._reason()) is not None:
                            await self.play(reason, lock)
                except BusyError as error:
                    log.debug("round.elsewhere", error=str(error))
            await asyncio.sleep(self._config.every_s)

    async def _go_on(self) -> None:
        """Go on with a rollout that was broken off: by the end of the last trainer, or by a failure."""
        card = served(await asyncio.to_thread(cards_in, self._models))
        if card is None or card.parent is None or self._plan.release is None:
            self._broken_off = False
            return
        try:
            with one_at_a_time(self._models) as lock:
                await self._release(self._plan.release(card), card, lock)
        except BusyError as error:  # whoever it is
            log.debug("round.elsewhere", error=str(error))

    async def play(self, reason: Reason, lock: int) -> Card | None:
        """Play one round.

        Args:
            reason: Why.
            lock: Descriptor of `one_at_a_time`.

        Returns:
            The card of the new version; None if the round failed, after which its event says why.
        """
        began = time.monotonic()
        await self._tell("round.started", reason.words, trigger=reason.trigger, **reason.facts)
        try:
            card = await self._make(lock)
        except (PermanentError, OSError) as error:
            self._failed_at = time.monotonic()
            await self._tell("round.failed", str(error), trigger=reason.trigger)
            return None
        self._failed_at = None
        took_s = round(time.monotonic() - began, 1)
        await self._tell("round.finished", _verdict(card), **_figures(card), took_s=took_s)
        if self._plan.release is not None and is_promoted(card):
            await self._release(self._plan.release(card), card, lock)
        if self._plan.tune is not None:
            limit_s = self._config.round_s
            await self._follow(self._plan.tune, card, lock, failure="policy.failed", limit_s=limit_s)
        return card

    async def _make(self, lock: int) -> Card:
        """Run the steps of a round and return the card of the version that they made.

        Raises:
            PermanentError: A step failed, or there is no new version.
            OSError: A step cannot be started.
        """
        before = await asyncio.to_thread(cards_in, self._models)
        (self._models / LOG).write_bytes(b"")
        for step in self._plan.steps:
            await self._run(step, lock, self._config.round_s)
        after = await asyncio.to_thread(cards_in, self._models)
        if len(after) == len(before):
            raise PermanentError("round", expected="a new version", got=f"none in {self._models}")
        return after[-1]

    async def _release(self, program: Program, card: Card, lock: int) -> None:
        """Hand a version over, however long that takes: a rollout waits for photos and for nodes."""
        ended = await self._follow(program, card, lock, failure="release.failed", limit_s=None)
        self._broken_off = not ended

    async def _follow(
        self, program: Program, card: Card, lock: int, *, failure: str, limit_s: float | None
    ) -> bool:
        """Run what follows a round that has finished; its failure is an event, once, and no one else's.

        Returns:
            Whether it succeeded.
        """
        try:
            await self._run(program, lock, limit_s)
        except (PermanentError, OSError) as error:
            if self._failure != (said := f"{failure} {card.version} {error}"):
                await self._tell(failure, str(error), version=card.version)
            self._failure = said
            return False
        self._failure = ""
        return True

    async def _reason(self) -> Reason | None:
        return await retry_until_ok(self._bus, "dataset", partial(asyncio.to_thread, self._look))

    def _look(self) -> Reason | None:
        facts = observe(self._store, cards_in(self._models), self._config.triggers)
        if self._failed_at is not None:
            since_s = time.monotonic() - self._failed_at
            facts = replace(facts, last_round_s=min(since_s, facts.last_round_s or since_s))
        return decide(facts, self._config.triggers)

    async def _run(self, program: Program, lock: int, limit_s: float | None) -> None:
        """Run a program to its end; cancelled or slower than its limit, it is ended.

        Raises:
            PermanentError: It failed; with its last words.
        """
        path = self._models / LOG
        with path.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *program, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(lock,)
            )
        try:
            async with asyncio.timeout(limit_s):
                code = await process.wait()
        except TimeoutError:
            expected, got = f"to end within {limit_s:g} s", "more"
            raise PermanentError(" ".join(program)[:200], expected=expected, got=got) from None
        finally:
            await _end(process)
        if code != 0:
            got = f"code {code}: {_last_words(path)}"
            raise PermanentError(" ".join(program)[:200], expected="to succeed", got=got)

    async def _tell(self, event: str, words: str, **facts: str | float | bool) -> None:
        """Publish an event, when the broker is there."""
        log.info(event, reason=words, **facts)
        message = Event(
            node=CLOUD,
            name=self._config.name,
            event=event,
            at_ms=now_ms(),
            reason=words[:_REASON_LENGTH],
            facts=facts,
        )
        publish = partial(self._bus.publish, EVENT, message, node=CLOUD, name=self._config.name)
        await retry_until_ok(self._bus, "broker", publish)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_FAREWELL_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _last_words(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing said")


def _verdict(card: Card) -> str:
    if card.verdict is None:
        return f"version {card.version}: no champion to beat, or no gold photos"
    return f"version {card.version}: {card.verdict.decision}: {'; '.join(card.verdict.reasons)}"


def _figures(card: Card) -> dict[str, str | float]:
    figures: dict[str, str | float] = {"version": card.version, "chosen": card.chosen}
    if card.verdict is not None:
        figures["decision"] = card.verdict.decision
    if card.metrics is not None:
        figures["gold_accuracy"] = card.metrics.accuracy
    return figures


async def watch(config: TrainerConfig, plan: Plan, password: str | None = None) -> None:
    """Run a trainer until cancelled.

    Raises:
        PermanentError: There is no dataset, or the broker refuses.
    """
    store = await asyncio.to_thread(partial(Store.open, config.dataset, create=False))
    bus = Bus(
        config.broker,
        f"gleaner-cloud-{config.name}",
        password=password,
        presence=Presence(CLOUD, config.name),
    )
    async with asyncio.TaskGroup() as tasks:
        if config.probes is not None:
            tasks.create_task(HealthServer(config.probes, bus.unready_reason).run(), name="trainer.probes")
        tasks.create_task(bus.run(), name="trainer.bus")
        tasks.create_task(Trainer(config, bus, store, plan).watch(), name="trainer.watch")


async def play_once(config: TrainerConfig, plan: Plan, password: str | None = None) -> Card:
    """Play one round by hand; cancelled, it is ended.

    Returns:
        The card of the new version.

    Raises:
        BusyError: Another one is under way.
        BrokerConnectionError: There is no broker to tell.
        PermanentError: There is no dataset, or the round failed.
    """
    store = await asyncio.to_thread(partial(Store.open, config.dataset, create=False))
    bus = Bus(config.broker, transient_client_id("round"), password=password)
    with one_at_a_time(Path(config.models)) as lock:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(bus.run(), name="round.bus")
            try:
                async with asyncio.timeout(_CONNECT_S):
                    await bus.connected()
            except TimeoutError:
                raise BrokerConnectionError("broker", expected="a connection", got=bus.last_error) from None
            card = await Trainer(config, bus, store, plan).play(Reason("hand", "by hand"), lock)
            running.cancel()
    if card is None:
        where = f"a failure: see {Path(config.models) / LOG}"
        raise PermanentError("round", expected="to succeed", got=where)
    return card
