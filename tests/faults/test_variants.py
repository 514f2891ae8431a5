"""The laboratory detects a broken rule: the same faults lose photos then."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

import tests.faults.laboratory
from tests.conftest import eventually
from tests.faults.components import pause, resume
from tests.faults.laboratory import ComponentDiedError, Laboratory
from tests.faults.preload import compiler
from tests.faults.stack import Stack, stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

INTERVAL_S = 0.2
"""Seconds between the photos of a device: the processes take longer to start than photos to pile up."""

FROZEN_AND_KILLED = {
    "outbox-on-puback": ("edge", "edge-broker"),
    "auto-ack": ("model-server", "edge"),
}
"""The component that is suspended so that photos pile up, and the one that is killed with them in memory."""


@pytest.mark.parametrize("variant", [None, *FROZEN_AND_KILLED])
async def test_g1_the_laboratory_detects_a_broken_rule(tmp_path, variant):
    """A component killed with photos in memory loses them, unless the answer is the acknowledgement."""
    async with (
        stack(tmp_path / "stack", interval_s=INTERVAL_S, variant=variant) as running,
        Laboratory(running).listening() as laboratory,
    ):
        for frozen, killed in FROZEN_AND_KILLED.values() if variant is None else [FROZEN_AND_KILLED[variant]]:
            await lose_memory(laboratory, running, frozen, killed)
        ledger = await laboratory.settle()
        assert running.deaths() == []
        assert (ledger.photos_lost > 0) == (variant is not None), f"{ledger.verdict}, see {running.logs}"


FOUND = {
    "accept-nothing": "photos lost",
    "half-accepted": "photos lost",
    "no-sync": "photos accepted before the disk had them",
    "first-picture": "with the picture of another photo",
    "never-again": "photos lost",
}
"""What the check must find in each product that is broken in another way."""


@pytest.mark.parametrize("variant", FOUND)
async def test_g1_g2_the_check_fails_a_broken_product(tmp_path, monkeypatch, variant):
    """A product that accepts without keeping or syncing, mixes up pictures or never resends has a verdict."""
    if variant == "no-sync" and compiler() is None:
        pytest.skip("no C compiler: syncs cannot be counted")
    monkeypatch.setattr(tests.faults.laboratory, "STUCK_S", 5.0)
    async with (
        stack(tmp_path / "stack", interval_s=INTERVAL_S, variant=variant) as running,
        Laboratory(running).listening() as laboratory,
        asyncio.timeout(600),
    ):
        if variant == "accept-nothing":  # nothing is answered
            await eventually(lambda: all(device.accepted.exists() for device in running.devices))
        elif variant == "never-again":
            await lose_accepted(laboratory, running)
        else:
            while running.answered.count < 30:
                await running.answered.next()
        ledger = await laboratory.settle()
    assert any(FOUND[variant] in sentence for sentence in ledger.verdict), ledger.verdict


async def test_a_process_that_dies_at_its_start_fails_at_once(tmp_path):
    """The laboratory does not wait for answers that cannot come; it quotes the last lines of the process."""
    with pytest.raises(ExceptionGroup) as failed:
        await start_with_an_invalid_configuration(tmp_path / "stack")
    assert failed.group_contains(ComponentDiedError, match="edge: exit code 1, see .*(?s:.*)node")


async def start_with_an_invalid_configuration(folder: Path) -> None:
    async with stack(folder) as running, Laboratory(running).listening():
        edge = running.command("edge")
        await edge.kill()
        (folder / "edge.toml").write_text("node = 7\n")
        await edge.start()
        await asyncio.get_running_loop().create_future()


async def lose_memory(laboratory: Laboratory, running: Stack, frozen: str, killed: str) -> None:
    """Suspend one component until photos have piled up behind it, then kill the other one."""
    async with asyncio.timeout(600):
        await running.answered.next()
        pause(running.components[frozen])
        for _ in range(40):
            await laboratory.photos.next()
        await running.components[killed].kill()
        await running.components[killed].start()
        resume(running.components[frozen])
        await running.answered.next()


async def lose_accepted(laboratory: Laboratory, running: Stack) -> None:
    """Kill the edge's broker while it alone has a photo; where none comes any more, one is lost already."""
    link = running.links["link edge"]
    link.closed = True
    link.cut()
    with suppress(TimeoutError):
        async with asyncio.timeout(20):
            await laboratory.photos.next()
    await running.components["edge-broker"].kill()
    await running.components["edge-broker"].start()
    link.heal()
