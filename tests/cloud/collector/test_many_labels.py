"""More labels than any queue holds, given while the collector was away: all of them are stored."""

import os
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from bus.broker.locate import Mosquitto
from bus.broker.process import BrokerProcess
from bus.mqtt.presence import now_ms
from cloud.dataset.store import Store
from schemas.codec import encode
from schemas.messages import Feedback
from schemas.topics import CLOUD, FEEDBACK
from tests.newer_broker import newer_mosquitto
from tests.nodes import NODE, Command, photo_id
from tests.sites import wait_until

LABELS = int(os.environ.get("GLEANER_LABELS", "8000"))
"""`make test-newer-broker` gives 100 000, which takes minutes."""
FLOOD = range(LABELS // 100, LABELS - 3 * LABELS // 100)
"""The labels of one device; those of others come before and behind them."""
_KILLS = 3
_STORED_BY_EACH = 1_500
"""More than are taken while the connection is being proven."""
_WITHIN_DEADLINE = min(LABELS, 10_000)
_MOST_MB = 500.0
"""A collector that has just started takes half of it."""


@pytest.fixture(params=["Debian 12", "Debian 13"])
def port(request: pytest.FixtureRequest, mosquitto: Mosquitto, tmp_path: Path) -> Iterator[int]:
    """The port of a mosquitto 2.0.11, and of a newer one where it was fetched."""
    program = mosquitto if request.param == "Debian 12" else newer_mosquitto()
    broker = BrokerProcess(tmp_path / "broker", program=program)
    broker.start()
    yield broker.port
    broker.stop()


@pytest.fixture
def collector(tmp_path: Path, port: int) -> Iterator[Command]:
    """A collector, not started; its log has each connection."""
    dataset = str(tmp_path / "dataset")
    command = Command(tmp_path, "cloud", "collect", "--broker", f"127.0.0.1:{port}", "--dataset", dataset)
    yield command
    command.kill()


def give_labels(port: int, numbers: range) -> None:
    """Publish a label for each number, as fast as the broker takes them; return when it has them all."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(500)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for number in numbers:
        device = "flood" if number in FLOOD else f"pi-{number % 20}"
        label = Feedback(
            photo_id=photo_id(number), node=NODE, device=device, label="cat", by=device, at_ms=now_ms()
        )
        sent = client.publish(FEEDBACK.name(node=NODE, device=device), encode(FEEDBACK, label), qos=1)
        if number % 10_000 == 0 or number == numbers[-1]:  # paho holds 65 535 at most
            sent.wait_for_publish()
    client.disconnect()
    client.loop_stop()


def correct(port: int, number: int) -> None:
    """Publish a person's label for one number."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    label = Feedback(
        photo_id=photo_id(number), node=CLOUD, device="anna", label="dog", by="anna", at_ms=now_ms()
    )
    client.publish(
        FEEDBACK.name(node=CLOUD, device="anna"), encode(FEEDBACK, label), qos=1
    ).wait_for_publish()
    client.disconnect()
    client.loop_stop()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_g3_more_labels_than_a_queue_holds_drain_across_kills_of_the_collector(tmp_path, port, collector):
    """G3: a flood of labels and those of others are all stored, and a correction behind them counts.

    Each run of a collector that is killed in between stores thousands, on one connection, in bounded memory.
    """
    store = Store.open(tmp_path / "dataset")

    def stored() -> int:
        return store.count("human_label IS NOT NULL")

    def connections() -> int:
        return collector.log.count('"bus.connected"')

    collector.start()
    wait_until(lambda: connections() == 2)  # its session for labels exists, and is kept
    collector.kill()
    give_labels(port, range(LABELS))
    correct(port, LABELS // 2)
    for _ in range(_KILLS):
        enough = min(LABELS, stored() + _STORED_BY_EACH)
        collector.start()
        wait_until(lambda enough=enough: stored() >= enough)
        collector.kill()
    collector.start()
    for enough in range(_WITHIN_DEADLINE, LABELS + 1, _WITHIN_DEADLINE):
        wait_until(lambda enough=enough: stored() >= enough)
    wait_until(lambda: store.count("human_label = 'dog'") == 1)
    assert collector.peak_mb() < _MOST_MB
    assert "bus.overflowed" not in collector.log
    assert connections() == 2 * (_KILLS + 2)
    assert collector.stop() == 0
