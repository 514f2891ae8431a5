"""The laboratory detects a broken rule: the same faults lose photos then."""

import asyncio

import pytest

from tests.faults.components import pause, resume
from tests.faults.laboratory import Laboratory
from tests.faults.stack import Stack, stack
from tests.faults.variants import VARIANTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

FROZEN_AND_KILLED = {
    "outbox-on-puback": ("edge", "edge-broker"),
    "auto-ack": ("model-server", "edge"),
}
"""The component that is suspended so that photos pile up, and the one that is killed with them in memory."""


@pytest.mark.parametrize("variant", [None, *VARIANTS])
async def test_g1_the_laboratory_detects_a_broken_rule(tmp_path, variant):
    """A component killed with photos in memory loses them, unless the answer is the acknowledgement."""
    async with (
        stack(tmp_path / "stack", variant=variant) as running,
        Laboratory(running).listening() as laboratory,
    ):
        for frozen, killed in FROZEN_AND_KILLED.values() if variant is None else [FROZEN_AND_KILLED[variant]]:
            await lose_memory(laboratory, running, frozen, killed)
        ledger = await laboratory.settle()
        assert running.deaths() == []
        assert (ledger.photos_lost > 0) == (variant is not None), f"{ledger.verdict}, see {running.logs}"


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
