"""A mix of faults of all kinds, drawn from a seed, in all parts of the system at the same time."""

import asyncio
from itertools import islice

import pytest

from tests.faults.laboratory import Laboratory
from tests.faults.schedule import STREAMS, faults
from tests.faults.stack import stack
from tests.faults.test_crash_points import check_guarantees

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SEED = 1
EACH = 3


async def test_g1_g2_a_mix_of_faults_loses_and_duplicates_nothing(tmp_path):
    """Each photo has one answer and each sample one row under overlapping faults of all kinds."""
    async with stack(tmp_path / "stack") as running, Laboratory(running).listening() as laboratory:
        async with asyncio.TaskGroup() as tasks:
            for stream in STREAMS:
                tasks.create_task(laboratory.inject(islice(faults(SEED, stream, mean_pause_s=1.0), EACH)))
        assert laboratory.report.faults == EACH * len(STREAMS)
        await check_guarantees(laboratory)
