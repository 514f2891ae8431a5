import asyncio

from bus.metrics import Counters
from edge.inference.shadow import Shadow
from edge.serving.client import Predictor
from edge.serving.prediction import Prediction
from edge.serving.traffic_router import TrafficRouter
from edge.serving.traffic_split import CanaryPlan, TrafficSplit
from tests.conftest import eventually
from tests.nodes import photo
from tests.serving import CLASSES


def said(version: int) -> Prediction:
    return Prediction("pets", version, {"cat": 0.9, "dog": 0.1}, b"")


async def test_what_finds_no_room_is_dropped_and_counted(serving):
    """At most 16 photos wait, nobody waits for room, and busy times see one photo a second."""
    router, counters = TrafficRouter(), Counters()
    async with Predictor(serving.address, "pets") as predictor:
        shadow = Shadow(predictor, router, lambda _: CLASSES, counters, busy=lambda: True)
        shadow.offer(photo(1), said(2))
        plan = CanaryPlan("canary", 0.5, 1, 2, 0)
        router.apply(TrafficSplit.preparing(plan).with_challenger(ready=True))
        for number in range(20):
            shadow.offer(photo(number), said(2))
        assert counters.snapshot() == {"trial.not_compared": 4}
        task = asyncio.create_task(shadow.run())
        await eventually(lambda: router.canary_report().compared == 1)
        shadow.offer(photo(1), said(2))
        shadow.offer(photo(1), said(2))
        assert counters.snapshot() == {"trial.not_compared": 5}
        assert (router.canary_report().compared, router.canary_report().disagreed) == (1, 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_version_that_is_not_there_ends_the_comparing_until_it_is(serving):
    """It is no failure of the version: the server was started anew, or unloads it just now."""
    router = TrafficRouter()
    plan = CanaryPlan("shadow", 1.0, 1, 9, 0)
    router.apply(TrafficSplit.preparing(plan).with_challenger(ready=True))
    async with Predictor(serving.address, "pets") as predictor:
        shadow = Shadow(predictor, router, lambda _: CLASSES, Counters(), busy=lambda: False)
        shadow.offer(photo(1), said(1))
        task = asyncio.create_task(shadow.run())
        await eventually(lambda: not router.split.ready)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
