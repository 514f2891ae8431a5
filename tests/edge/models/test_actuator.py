"""What an action leaves behind when the edge is stopped in the middle of it."""

import asyncio

import pytest

from bus.metrics import Counters
from edge.models import actions
from edge.models.actuator import Actuator
from edge.models.observation import Attempt
from edge.models.release_records import ReleaseRecords
from edge.models.transfer import bundle_source
from edge.serving.client import Predictor
from edge.serving.traffic_router import TrafficRouter
from tests.conftest import eventually
from tests.file_server import dripping
from tests.serving import pack, release_of, saved_models


async def test_a_stopped_edge_leaves_no_download(tmp_path, monkeypatch):
    """Its thread ends with the next piece: the process would wait for the whole bundle, and end as failed."""
    monkeypatch.setattr(bundle_source, "_HEAD_START_S", 0.0)
    base, packed = tmp_path / "pets", pack(saved_models() / "straight", tmp_path / "bundle.tar")
    records = ReleaseRecords(tmp_path / "releases", "pets", base)
    actuator = Actuator(base, records, Predictor("127.0.0.1:1", "pets"), TrafficRouter(), Counters())
    async with dripping() as url:
        release = release_of(packed, 2, url=url, size_bytes=250)  # five seconds
        fetching = asyncio.create_task(actuator.perform(actions.Fetch(), release, Attempt()))
        await eventually((base / "incoming-2.tar").exists)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        await asyncio.get_running_loop().shutdown_default_executor()
    assert (base / "incoming-2.tar").exists(), "a whole bundle would have been compared with its digest"
