"""The queue of outcomes has a place for each photo in flight, whatever else is refused."""

from bus.config import Broker
from bus.mqtt.client import Bus
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge.config import EdgeConfig
from edge.harvest.sampler import Sampler
from edge.inference.answers import results
from edge.inference.answers.repetition import id_reused
from edge.inference.answers.responder import Outcome
from edge.inference.pipeline import Pipeline
from edge.inference.validation import Rejected
from edge.scheduling.in_flight import InFlightPhoto
from edge.serving.client import Predictor
from edge.serving.traffic_router import TrafficRouter
from schemas.messages import Photo
from tests.conftest import jpeg
from tests.nodes import NODE, photo_id


def entry(number: int, acked: list[int]) -> InFlightPhoto:
    photo = Photo(photo_id=photo_id(number), node=NODE, device="pi-1", image=jpeg(1))
    return InFlightPhoto(photo, lambda: acked.append(number), 0.0)


def pipeline(config: EdgeConfig, database: Database) -> Pipeline:
    bus = Bus(Broker(), "edge")
    outbox = Outbox(database, config.outbox, bus.counters, name="sample")
    return Pipeline(
        config,
        bus,
        predictor=Predictor("127.0.0.1:1", "pets"),
        database=database,
        sampler=Sampler(config.harvest, outbox),
        class_names=lambda _: None,
        temperature=lambda _: None,
        router=TrafficRouter(),
    )


def test_g4_refused_photos_take_no_place_of_photos_in_flight(tmp_path):
    """G4: a device that sends a thousand other pictures with one id at once stops nothing.

    They arrive in one burst, before anything is answered: those beyond a bound are acknowledged and counted.
    """
    config, acked = EdgeConfig(waiting=3, state_dir=str(tmp_path)), list[int]()
    edge = pipeline(config, Database(tmp_path / "edge.db", {}))
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
