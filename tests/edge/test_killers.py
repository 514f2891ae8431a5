"""G4: a photo that occupies or stops a model server, or the edge, does not affect other photos.

No static check finds these photos: the model of the test aborts, or waits on a named pipe, for green ones.
"""

import asyncio
import contextlib
import io
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from PIL import Image

from bench.hostile import with_scans
from edge.config import EdgeConfig
from edge.inference.attempts import MAX_ATTEMPTS
from edge.scheduling.cost import decode_ms, is_expensive
from schemas.image import inspect_image
from tests.conftest import eventually
from tests.nodes import (
    Observer,
    counted,
    edge_config,
    edge_process,
    edge_running,
    enveloped,
    photo,
    photo_id,
    station,
)
from tests.serving import START_S, ModelServer, place

KILLER = enveloped(999, photo(999, "green"), "hostile")


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """The named pipe of a model `stalling`, which a green photo reads."""
    place("stalling", tmp_path / "models/pets", 1)
    path = tmp_path / "models/pets/1/assets/stalled"
    path.unlink()
    os.mkfifo(path)
    return path


@pytest.fixture
def stalling(pipe: Path, tmp_path: Path) -> Iterator[ModelServer]:
    server = ModelServer(tmp_path / "models", "pets", rpc_threads=8)
    server.start()
    yield server
    server.kill()


def end_stalls(pipe: Path) -> None:
    """Let all photos end that are being decoded now."""
    with contextlib.suppress(OSError):  # ENXIO: nobody reads it
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


@asynccontextmanager
async def supervised(server: ModelServer) -> AsyncIterator[list[int]]:
    """Start a server again each time that it ends; yields a list with an entry per end."""
    ends: list[int] = []

    async def supervise() -> None:
        while True:
            code = await asyncio.to_thread(server.wait)
            ends.append(code)
            server.launch()

    server.start()
    task = asyncio.create_task(supervise())
    try:
        yield ends
    finally:
        task.cancel()
        server.kill()
        await asyncio.gather(task, return_exceptions=True)


def edge_of(address, server: ModelServer, tmp_path: Path, **changes: object) -> EdgeConfig:
    return edge_config(address, server.address, tmp_path, models_dir=str(server.base), **changes)


async def test_g4_a_photo_that_occupies_the_model_server_costs_only_itself(address, stalling, pipe, tmp_path):
    """Calm devices are answered while it is being decoded; its repetitions get the same answer."""
    config = edge_of(address, stalling, tmp_path, predict_timeout_s=3.0)
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            await seen.send(KILLER, "hostile")
            await eventually(lambda: any(one.device == "hostile" for one in seen.results))
            for number in range(20):
                await seen.send(enveloped(number, photo(number), f"pi-{number % 3}"), f"pi-{number % 3}")
            for number in range(20):
                assert (await seen.answer(photo_id(number), f"pi-{number % 3}")).status == "ok"
            rejection = await seen.answer(photo_id(999), "hostile")
            assert (rejection.status, rejection.code) == ("rejected", "corrupt-image")
            assert "with this photo alone" in rejection.reason
            # Its decoders still work: until they end, the device has no other turn, and others have theirs.
            await seen.send(enveloped(1000, photo(1000), "hostile"), "hostile")
            await seen.send(enveloped(1001, photo(1001), "calm"), "calm")
            assert (await seen.answer(photo_id(1001), "calm")).status == "ok"
            assert photo_id(1000) not in seen.final("hostile")
            end_stalls(pipe)
            assert (await seen.answer(photo_id(1000), "hostile")).status == "ok"
            await seen.send(KILLER, "hostile")
            await eventually(lambda: [one.photo_id for one in seen.results].count(photo_id(999)) >= 3)
        assert (await counted(seen))["photo.answered_before"] == 1
        assert [one.status for one in seen.results if one.photo_id == photo_id(999)].count("rejected") == 2


async def test_g4_ten_hostile_devices_leave_a_calm_one_its_answers(address, stalling, pipe, tmp_path):
    """Photos of a calm device are answered while each of ten devices has one that occupies the server."""
    config = edge_of(address, stalling, tmp_path, predict_timeout_s=3.0)
    async with station(config) as seen:
        await seen.send(enveloped(0, photo(0), "calm"), "calm")
        await seen.answer(photo_id(0), "calm")
        for number in range(10):
            device = f"hostile-{number}"
            await seen.send(enveloped(1000 + number, photo(number, "green"), device), device)
        for number in range(1, 30):
            await seen.send(enveloped(number, photo(number), "calm"), "calm")
            assert (await seen.answer(photo_id(number), "calm")).status == "ok"
        hostile = [one for one in seen.results if one.device != "calm" and one.status != "deferred"]
        assert all(one.code == "corrupt-image" for one in hostile)
        for number in range(10):
            device = f"hostile-{number}"
            await eventually(lambda device=device: _rejected(seen, device, pipe))
        await seen.send(enveloped(30, photo(30), "calm"), "calm")
        assert (await seen.answer(photo_id(30), "calm")).status == "ok"


async def test_g4_a_calm_photo_is_answered_while_expensive_ones_are_decoded(
    address, stalling, pipe, tmp_path
):
    """Ten devices have photos that are known to be expensive; one in progress leaves a call free."""
    many_scans = with_scans(Image.open(io.BytesIO(photo(999, "green", size=(1200, 1000)))), 85)
    assert is_expensive(decode_ms(inspect_image(many_scans), len(many_scans)))
    config = edge_of(address, stalling, tmp_path, predict_timeout_s=300.0)
    async with station(config) as seen:
        for number in range(10):
            device = f"hostile-{number}"
            await seen.send(enveloped(1000 + number, many_scans, device), device)
        for number in range(10):
            await seen.send(enveloped(number, photo(number), "calm"), "calm")
            assert (await seen.answer(photo_id(number), "calm")).status == "ok"
        assert not [one for one in seen.results if one.device != "calm" and one.status != "deferred"]
        end_stalls(pipe)


def _rejected(seen: Observer, device: str, pipe: Path) -> bool:
    """End what is being decoded, so that the next photos get their turn; return whether one was rejected."""
    if any(one.code == "corrupt-image" for one in seen.final(device).values()):
        return True
    if len(seen.final(device)) == 0 and any(one.status == "rejected" for one in seen.results):
        end_stalls(pipe)
    return False


async def test_g4_a_photo_that_stops_the_model_server_is_recognised(address, tmp_path):
    """It stops the server a stated number of times, also across restarts of the edge, then never again."""
    place("deadly", tmp_path / "models/pets", 1)
    server = ModelServer(tmp_path / "models", "pets")
    config = edge_of(address, server, tmp_path)
    async with supervised(server) as ends, Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            await seen.send(KILLER, "hostile")
            for number in range(5):
                await seen.send(enveloped(number, photo(number), "calm"), "calm")
            await eventually(lambda: bool(ends), within_s=START_S)
        async with edge_running(config):
            rejection = await seen.answer(photo_id(999), "hostile", within_s=START_S)
            assert rejection.code == "corrupt-image"
            await seen.send(enveloped(5, photo(5), "calm"), "calm")
            for number in range(6):
                assert (await seen.answer(photo_id(number), "calm", within_s=START_S)).status == "ok"
        stops = len(ends)
        assert stops <= MAX_ATTEMPTS + 2  # in its batch, after the restart of the server again, then alone
        # Also if the recorded answer was lost.
        with closing(sqlite3.connect(Path(config.state_dir) / "edge.db")) as database, database:
            database.execute("DELETE FROM answer")
        async with edge_running(config):
            await seen.send(KILLER, "hostile")
            await eventually(lambda: [one.status for one in seen.results].count("rejected") == 2)
            await seen.send(enveloped(6, photo(6), "calm"), "calm")
            assert (await seen.answer(photo_id(6), "calm")).status == "ok"
        assert len(ends) == stops


async def test_g4_a_photo_that_kills_the_edge_is_rejected_undecoded(address, stalling, pipe, tmp_path):
    """A kill while it is tried alone is an attempt; after the stated number it is not decoded again."""
    config = edge_of(address, stalling, tmp_path, predict_timeout_s=30.0)
    marks = Path(config.state_dir) / "decoding.marks"
    key = photo_id(999).encode()
    async with Observer(config.broker).watching() as seen:
        await seen.bus.connected()
        with edge_process(config, tmp_path) as edge:
            edge.start()
            await seen.status("online")
            await seen.send(KILLER, "hostile")
            await eventually(lambda: key in marks.read_bytes())
            edge.kill()
            for number in range(1, MAX_ATTEMPTS + 1):
                edge.start()
                await eventually(lambda number=number: edge.log.count("photo.tried_alone") == number)
                edge.kill()
            end_stalls(pipe)
            edge.start()
            rejection = await seen.answer(photo_id(999), "hostile")
            assert rejection.code == "corrupt-image"
            assert edge.log.count("photo.tried_alone") == MAX_ATTEMPTS
            edge.stop()
