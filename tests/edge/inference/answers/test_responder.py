"""Rules of the responder: its queue has a place for each photo in flight; other outcomes may be refused."""

import asyncio

from bus.config import Broker
from bus.mqtt.client import Bus
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge.config import EdgeConfig
from edge.harvest.sampler import Sampler
from edge.inference import attempts
from edge.inference.answers import result_log, results
from edge.inference.answers.repetition import id_reused
from edge.inference.answers.responder import Outcome
from edge.inference.pipeline import Pipeline
from edge.inference.validation import Rejected
from edge.scheduling.in_flight import InFlightPhoto
from edge.serving.client import Predictor
from edge.serving.traffic_router import TrafficRouter
from schemas.messages import Photo
from schemas.topics import RESULT
from tests.bus.mqtt.test_limits import limit
from tests.conftest import eventually, jpeg, running
from tests.nodes import NODE, photo_id


def entry(number: int, acked: list[int], device: str = "pi-1") -> InFlightPhoto:
    photo = Photo(photo_id=photo_id(number), node=NODE, device=device, image=jpeg(1))
    return InFlightPhoto(photo, lambda: acked.append(number), 0.0)


def pipeline(config: EdgeConfig, database: Database, bus: Bus) -> Pipeline:
    outbox = Outbox(database, config.outbox, bus.counters, name="sample")
    return Pipeline(
        config,
        bus,
        predictor=Predictor("127.0.0.1:1", "pets"),
        database=database,
        sampler=Sampler(config.harvest, outbox),
        class_names=lambda _: None,
        temperature=lambda _: None,
        head_of=lambda _, __: None,
        router=TrafficRouter(),
    )


def test_g4_refused_photos_take_no_place_of_photos_in_flight(tmp_path):
    """G4: a device that sends a thousand other pictures with one id at once stops nothing.

    They arrive in one burst, before anything is answered: those beyond a bound are acknowledged and counted.
    """
    config, acked = EdgeConfig(waiting=3, state_dir=str(tmp_path)), list[int]()
    edge = pipeline(config, Database(tmp_path / "edge.db", {}), Bus(Broker(), "edge"))
    in_flight = [entry(number, acked) for number in range(config.waiting)]
    for one in in_flight:
        assert edge._queue.admit(one) == []
    for number in range(1000):
        other = entry(0, acked)
        edge._responder.refuse(other, id_reused(other.photo))
        if number % 400 == 0:  # its own photo is answered somewhere in the burst
            rejected = Rejected(in_flight[-1].photo, "corrupt-image", "torn")
            edge._responder.put(Outcome(in_flight.pop(), results.rejected(rejected, 0.0)))
    assert not in_flight
    assert 500 < len(acked) < 1000


async def test_g4_an_answer_that_the_broker_refuses_takes_no_place(broker, address, tmp_path, monkeypatch):
    """G4: a device whose results may not be published keeps its photos; the others are answered."""
    rights = tmp_path / "rights"
    rights.write_text(f"topic readwrite #\ntopic deny {RESULT.name(node=NODE, device='pi-1')}\n")
    limit(monkeypatch, broker, "", f"acl_file {rights}")
    bus, acked = Bus(address, "edge"), list[int]()
    tables = {"outbox": Outbox.MIGRATIONS, "answers": result_log.MIGRATIONS, "attempts": attempts.MIGRATIONS}
    async with Database(tmp_path / "edge.db", tables) as database, running(bus):
        edge = pipeline(EdgeConfig(state_dir=str(tmp_path)), database, bus)
        answering = asyncio.create_task(edge._responder.run())
        for number, device in enumerate(("pi-1", "pi-2")):
            one = entry(number, acked, device)
            edge._queue.admit(one)
            rejected = Rejected(one.photo, "corrupt-image", "torn")
            edge._responder.put(Outcome(one, results.rejected(rejected, 0.0)))
        await eventually(lambda: sorted(acked) == [0, 1])
        assert len(edge._queue) == 0
        assert (bus.counters["result.refused"], bus.counters["bus.disconnected"]) == (1, 0)
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
