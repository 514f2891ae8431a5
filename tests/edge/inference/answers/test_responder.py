"""The queue of outcomes has a place for each photo in flight, whatever else is refused."""

from pathlib import Path

from bus.config import Broker
from bus.mqtt.client import Bus
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge.config import EdgeConfig
from edge.harvest.sampler import Sampler
from edge.inference.answers import results
from edge.inference.answers.repetition import id_reused
from edge.inference.answers.responder import Outcome, Responder
from edge.inference.validation import Rejected
from edge.scheduling.bounds import Bounds
from edge.scheduling.fair_queue import FairQueue
from edge.scheduling.in_flight import InFlightPhoto
from schemas.messages import Photo
from tests.conftest import jpeg
from tests.nodes import NODE, photo_id


def entry(number: int, acked: list[int]) -> InFlightPhoto:
    photo = Photo(photo_id=photo_id(number), node=NODE, device="pi-1", image=jpeg(1))
    return InFlightPhoto(photo, lambda: acked.append(number), 0.0)


def responder(waiting: int, queue: FairQueue) -> Responder:
    config, bus = EdgeConfig(waiting=waiting), Bus(Broker(), "edge")
    database = Database(Path("unused.db"), {})
    outbox = Outbox(database, config.outbox, bus.counters, name="sample")
    sampler = Sampler(config.harvest, outbox)
    return Responder(config, bus, database=database, sampler=sampler, queue=queue, defer=lambda *_: None)


def test_g4_refused_photos_take_no_place_of_photos_in_flight():
    """G4: a device that sends a thousand other pictures with one id at once stops nothing.

    They arrive in one burst, before anything is answered: those beyond a bound are acknowledged and counted.
    """
    waiting, acked = 3, list[int]()
    queue = FairQueue(Bounds(waiting, waiting, 10**9))
    answers = responder(waiting, queue)
    in_flight = [entry(number, acked) for number in range(waiting)]
    for one in in_flight:
        assert queue.admit(one) == []
    for number in range(1000):
        other = entry(0, acked)
        answers.refuse(other, id_reused(other.photo))
        if number % 400 == 0:  # its own photo is answered somewhere in the burst
            rejected = Rejected(in_flight[-1].photo, "corrupt-image", "torn")
            answers.put(Outcome(in_flight.pop(), results.rejected(rejected, 0.0)))
    assert not in_flight
    assert 500 < len(acked) < 1000
