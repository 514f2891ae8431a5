"""What a photo may cost the handler, in counts, which do not depend on the load of the machine."""

import math

from msgspec import structs

from bench.counts import count
from bus import log
from edge.config import EdgeConfig
from schemas.messages import HarvestRules

PHOTOS = 60


async def test_a_photo_costs_no_more_than_agreed(config: EdgeConfig) -> None:
    """Transactions, tasks and calls for a single photo that is not harvested are limited.

    Each limit is about a quarter above the count. A commit that raises one says why.
    """
    log.configure("info", json=True)
    unharvested = HarvestRules(auto=False, audit_share=0, uncertain_above=1)
    counted = await count(structs.replace(config, harvest=unharvested), PHOTOS)
    assert counted.commits <= 2.2  # one to look for a recorded result, one to record this one
    assert counted.tasks <= 4.8  # batch, hash, result, the call, and what gRPC creates now and then
    assert counted.handovers <= 1.2  # to decode it for its hash
    allowed = {"edge": 230, "bus": 65, "schemas": 30, "paho": 105, "aiomqtt": 17, "structlog": 27, "grpc": 40}
    over = {name: calls for name, calls in counted.calls.items() if calls > allowed.get(name, math.inf)}
    assert not over, f"calls for a photo, more than {allowed}"
    assert sum(counted.calls.values()) <= 2400
