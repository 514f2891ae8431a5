"""The whole flow with real processes: camera, broker, edge, model server, collector, dataset."""

import asyncio
import collections
import contextlib
import hashlib
import json
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from cloud.dataset.store import Store
from tests.canaries import single_model_server
from tests.conftest import DEADLINE_S, eventually
from tests.device.conftest import process, recorded
from tests.nodes import Command, photo

PHOTOS = 60
OUTBOX = "[outbox]\nresend_first_s = 0.5\nresend_cap_s = 2.0\n"


@pytest.fixture
def camera(tmp_path):
    """A folder of confident photos, so that each one is harvested."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(PHOTOS):
        (folder / f"{number:02d}.jpg").write_bytes(photo(number, "red" if number % 2 else "blue"))
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A model server that classifies red and blue."""
    with single_model_server(tmp_path_factory.mktemp("models")) as running:
        yield running


@pytest.fixture
def dataset(address, server, tmp_path):
    """Run edge and collector as processes; return the folder of their dataset."""
    (tmp_path / "edge.toml").write_text(f"[harvest]\nnear_duplicate_s = 0\naudit_share = 0\n{OUTBOX}")
    where = ("--broker", f"127.0.0.1:{address.port}")
    folders = ("--models-dir", str(server.base), "--state-dir", str(tmp_path / "edge"))
    config = ("--config", str(tmp_path / "edge.toml"), "--serving", server.address)
    edge = Command(tmp_path, "edge", *config, *folders, *where)
    collector = Command(tmp_path, "cloud", "collect", "--dataset", str(tmp_path / "dataset"), *where)
    with contextlib.ExitStack() as ending:
        for part in (edge, collector):
            ending.callback(part.kill)
            part.start()
        yield tmp_path / "dataset"


async def test_g1_g2_a_broker_lost_twice_loses_no_photo_and_no_sample(
    broker, address, dataset, camera, tmp_path
):
    """Mosquitto is killed and later stopped in mid-stream; each photo has one result and one row."""
    (tmp_path / "device.toml").write_text(OUTBOX)
    words = ("--config", str(tmp_path / "device.toml"), "--camera", camera, "--interval", "0.05")
    with process(address, tmp_path, *words) as agent:
        await eventually(lambda: answers(tmp_path) >= 15)
        broker.kill()
        broker.start()
        await eventually(lambda: answers(tmp_path) >= 35)
        broker.stop()
        broker.start()
        assert await asyncio.to_thread(agent.wait, 60) == 0
    answered = recorded(tmp_path / "state")
    assert collections.Counter(answer.status for answer in answered) == {"ok": PHOTOS}
    assert len({answer.photo_id for answer in answered}) == PHOTOS
    harvested = {answer.photo_id for answer in answered if answer.harvest == "auto"}
    assert len(harvested) == PHOTOS
    store = Store.open(dataset)
    await eventually(lambda: store.count("true") >= PHOTOS)
    rows = [str(row["photo_id"]) for row in store.scan(["photo_id"], where="true")]
    assert sorted(rows) == sorted(harvested)


async def test_a_bare_photo_is_answered_with_a_line_of_json(address, dataset):
    """`mosquitto_pub -f cat.jpg` and `mosquitto_sub` are a complete client."""
    lines: list[bytes] = []
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.on_message = lambda *event: lines.append(event[-1].payload)
    client.connect("127.0.0.1", address.port)
    client.loop_start()
    try:
        client.subscribe("gleaner/v1/result/edge-1/me", qos=1)
        image = photo(1, "red")
        for _ in range(round(DEADLINE_S)):  # the broker drops it until the edge has subscribed
            client.publish("gleaner/v1/photo/edge-1/me", image, qos=1)
            with contextlib.suppress(AssertionError):
                await eventually(lambda: any(b'"ok"' in line for line in lines), within_s=1)
                break
    finally:
        client.loop_stop()
        client.disconnect()
    answer = json.loads(next(line for line in lines if b'"ok"' in line).decode())
    assert answer["photo_id"] == hashlib.blake2b(image, digest_size=16).hexdigest()
    assert (answer["label"], answer["model"], answer["model_version"]) == ("cat", "pets", 1)
    assert answer["confidence"] > 0.9


def answers(folder: Path) -> int:
    """Count the final results that the agent has printed."""
    return (folder / "device.log").read_text().count('"status":"ok"')
