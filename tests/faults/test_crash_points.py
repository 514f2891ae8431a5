"""Kill a component at every step of the protocol, or a broker while the component is suspended there."""

import asyncio
import random
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.faults.components import resume
from tests.faults.crashing import points_of
from tests.faults.laboratory import Laboratory
from tests.faults.schedule import Fault
from tests.faults.stack import stack

STEP_S = 600.0
"""Seconds to reach a step, on a busy machine."""

INTERVAL_S = 0.2
"""Seconds between the photos of a device: several per second reach every step soon enough."""

SEED = 1
HELD_BY = {
    "device.photo-published": ("edge-broker",),
    "edge.photo-received": ("edge-broker",),
    "edge.result-published": ("edge-broker",),
    "edge.sample-published": ("edge-broker", "cloud-broker"),
    "edge.receipt-received": ("edge-broker",),
    "collector.sample-received": ("cloud-broker",),
    "collector.receipt-published": ("edge-broker", "cloud-broker"),
}
"""Steps at which a message is sent and not yet answered, and the brokers that have it then."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_every_step_is_a_function_of_the_product():
    """A step whose function was renamed would never be reached, and so not be tested."""
    code = "from tests.faults.crashing import POINTS, find; [find(p.function) for p in POINTS.values()]"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]


async def test_g1_g2_a_crash_at_any_step_loses_and_duplicates_nothing(tmp_path):
    """Each photo has one answer and each sample one row, at any step at which a component was killed."""
    draw = random.Random(SEED)
    async with (
        stack(tmp_path / "stack", interval_s=INTERVAL_S) as running,
        Laboratory(running).listening() as laboratory,
    ):

        async def crash_at_each_step(target: str) -> None:
            for point in points_of(target):
                await running.command(target).stop()
                fault = Fault(target, "crash", point=point, nth=draw.randint(1, 4))
                assert await laboratory.crash(fault, STEP_S), f"{point} was not reached, see {running.logs}"
            await running.command(target).start()

        async with asyncio.TaskGroup() as tasks:
            for target in ("device-1", "edge", "collector", "model-server"):
                tasks.create_task(crash_at_each_step(target))
        await check_guarantees(laboratory)


async def test_g1_g2_a_broker_killed_at_any_step_loses_and_duplicates_nothing(tmp_path):
    """A message that a broker has acknowledged and lost is sent again by its sender."""
    async with (
        stack(tmp_path / "stack", interval_s=INTERVAL_S) as running,
        Laboratory(running).listening() as laboratory,
    ):
        for point, brokers in HELD_BY.items():
            component = point.partition(".")[0]
            command = running.command({"device": "device-1"}.get(component, component))
            await command.stop()
            await command.start(at=point, nth=3, stop=True)
            async with asyncio.timeout(STEP_S):
                await command.stopped()
            for name in brokers:
                await running.components[name].kill()
                await running.components[name].start()
            resume(command)
        await check_guarantees(laboratory)


async def check_guarantees(laboratory: Laboratory) -> None:
    """Wait until everything is answered and stored, and assert G1 and G2."""
    ledger = await laboratory.settle()
    assert ledger.photos > 0
    assert ledger.samples > 0
    assert ledger.verdict + laboratory.stack.deaths() == [], f"see {laboratory.stack.logs}"
