"""A mix of all faults, drawn by a seed, in all parts of the system at the same time."""

import asyncio
from itertools import islice

import pytest

from tests.faults.laboratory import Laboratory
from tests.faults.schedule import STREAMS, faults
from tests.faults.stack import stack
from tests.faults.test_crash_points import holds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEED = 1
EACH = 3


async def test_g1_g2_a_mix_of_faults_loses_and_doubles_nothing(tmp_path):
    """Whatever is killed, frozen, cut, halved, delayed or silent, and whatever else at the same time."""
    async with stack(tmp_path / "stack") as running, Laboratory(running).listening() as laboratory:
        async with asyncio.TaskGroup() as tasks:
            for stream in STREAMS:
                tasks.create_task(laboratory.inflict(islice(faults(SEED, stream, mean_pause_s=1.0), EACH)))
        assert laboratory.report.faults == EACH * len(STREAMS)
        await holds(laboratory)
