"""What a photo may cost the handler, in counts, which do not depend on the load of the machine."""

import math

from msgspec import structs

from bench.counts import count
from bus import log
from edge.config import EdgeConfig
from schemas.policy_rules import HarvestRules

PHOTOS = 60


async def test_a_photo_costs_no_more_than_agreed(config: EdgeConfig) -> None:
    """Transactions, tasks, wake-ups and calls for a single photo that is not harvested are limited.

    Each limit is up to a quarter above the count. A commit that raises one gives the reason.
    """
    log.configure("info", json=True)
    unharvested = HarvestRules(auto=False, audit_share=0, uncertain_above=1)
    counted = await count(structs.replace(config, harvest=unharvested), PHOTOS)
    assert counted.commits <= 1.2  # to record the result; a new photo is looked up in memory
    assert counted.tasks <= 4.8  # batch, hash, result, the call, and what gRPC creates now and then
    assert counted.handovers <= 0.2  # a photo of this size is decoded in the thread of the event loop
    assert counted.wake_ups <= 1.3  # by the thread of the database; packets for the broker need none
    # schemas: each segment of a JPEG is checked as libjpeg reads it, and again where it is decoded, which
    # used to be in a thread. bus: the progress of each publish and
    # the bound of each queue are followed; MQTT 5 adds 130 calls of built-in functions for its properties.
    # edge: only the time in which the server answers counts against a photo, which takes a check per step.
    allowed = {
        "edge": 250,
        "bus": 105,
        "schemas": 200,
        "paho": 105,
        "aiomqtt": 17,
        "structlog": 27,
        "grpc": 40,
    }
    over = {name: calls for name, calls in counted.calls.items() if calls > allowed.get(name, math.inf)}
    assert not over, f"calls for a photo, more than {allowed}"
    assert sum(counted.calls.values()) <= 2700
