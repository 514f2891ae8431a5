"""Rules of demo/round.py and demo/run.py: what follows when a round has ended."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from bus.config import Broker
from bus.mqtt.client import Bus
from cloud.evaluation.promotion_gate import GateDecision, Verdict
from cloud.registry.registry import Registry
from demo.photos import Collection
from demo.processes import Processes
from demo.round import Round
from demo.run import Demo
from demo.screen import Screen
from demo.services import NODE, Services
from schemas.topics import EVENT
from tests.cloud.bundles import card


class Recorded(Processes):
    """Keeps the words of commands, and runs none."""

    def __init__(self, logs: Path) -> None:
        super().__init__(logs)
        self.words: list[tuple[str, ...]] = []

    async def run(self, name: str, *words: str, module: str = "cli.main") -> str:
        self.words.append(words)
        return ""


@pytest.mark.parametrize(
    ("decision", "served"), [(None, 2), ("promote", 2), ("keep", 1), ("inconclusive", 1)]
)
async def test_the_champion_is_in_service_when_the_round_has_ended(
    decision: GateDecision | None, served: int, tmp_path: Path
):
    """The swap releases version 2 in any case; version 1 replaces it unless the gate promoted it."""
    services, processes, bus = Services(tmp_path), Recorded(tmp_path), Bus(Broker(), "test")
    registry, shown = Registry(services.models), io.StringIO()
    registry.write_card(card(1))
    verdict = None if decision is None else Verdict(decision, 1, ["recall fell"], None, None, None)
    registry.write_card(card(2, verdict))
    ended = Round(
        backbone="none", out=tmp_path, seed=1, collection=Collection(tmp_path, {}, 0), services=services,
        processes=processes, screen=Screen(1, Console(file=shown)), bus=bus, events=bus.subscribe(EVENT),
    )  # fmt: skip
    await ended.serve_champion()
    released = [words[2:5] for words in processes.words]
    assert released == ([] if served == 2 else [(str(registry.bundle_path(1)), "--nodes", NODE)])
    said = shown.getvalue()
    assert ("the gate did not promote version 2" in said, f"{NODE} serves version 1" in said) == (
        (served == 1,) * 2
    )


@pytest.mark.parametrize("stay", [False, True])
async def test_a_demonstration_ends_with_its_round_unless_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stay: bool
):
    """With --stay the champion is put in service before everything is left running; both keep the outcome."""
    done: list[str] = []

    def step(kind: type, name: str, answer: object = None) -> None:
        async def stub(*_: object, **__: object) -> object:
            done.append(name)
            return answer

        monkeypatch.setattr(kind, name, stub)

    step(Processes, "run", "")  # the backbone is available
    step(Demo, "_collect", Collection(tmp_path, {}, 0))
    for name in ("start_broker", "start_others", "start_console"):
        step(Services, name, "http://127.0.0.1")
    step(Round, "run", "one photo lost")
    step(Round, "serve_champion")
    step(Demo, "_stay")
    work, shown = tmp_path / "work", io.StringIO()
    demo = Demo("compact", tmp_path, None, 1, work, Screen(1, Console(file=shown)), stay=stay)
    assert await demo.run() == "one photo lost"
    after = done[done.index("start_console") + 1 :]
    assert after == (["run", "serve_champion", "_stay"] if stay else ["run"])
    assert ("one photo lost" in shown.getvalue()) == stay
