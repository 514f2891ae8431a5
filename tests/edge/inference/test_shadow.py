"""Answered photos are compared with the other version of a rollout."""

import asyncio

from bus.metrics import Counters
from edge.inference.shadow import Shadow
from edge.serving.client import Predictor
from edge.serving.prediction import Prediction
from edge.serving.traffic_router import TrafficRouter
from edge.serving.traffic_split import CanaryPlan, TrafficSplit
from schemas.groups.heads import GroupHead
from tests.conftest import eventually
from tests.group_heads import MIRROR
from tests.nodes import photo
from tests.serving import CLASSES


def prediction(version: int, group: str = "") -> Prediction:
    return Prediction("pets", version, {"cat": 0.9, "dog": 0.1}, b"", group=group)


def no_head(version: int, group: str) -> GroupHead | None:
    """Return no head: the shared one answers for every group."""


async def test_photos_beyond_the_queue_are_dropped_and_counted(serving):
    """16 photos are queued, and while the edge is busy one a second is compared."""
    router, counters = TrafficRouter(), Counters()
    async with Predictor(serving.address, "pets") as predictor:
        shadow = Shadow(predictor, router, lambda _: CLASSES, counters, head_of=no_head, busy=lambda: True)
        shadow.offer(photo(1), prediction(2))
        plan = CanaryPlan("canary", 0.5, 1, 2, 0)
        router.apply(TrafficSplit.preparing(plan).with_challenger(ready=True))
        for number in range(20):
            shadow.offer(photo(number), prediction(2))
        assert counters.snapshot() == {"shadow.dropped": 4}
        task = asyncio.create_task(shadow.run())
        await eventually(lambda: router.canary_report().compared == 1)
        shadow.offer(photo(1), prediction(2))
        shadow.offer(photo(1), prediction(2))
        assert counters.snapshot() == {"shadow.dropped": 5}
        assert (router.canary_report().compared, router.canary_report().disagreed) == (1, 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_missing_version_stops_the_comparison(serving):
    """It is not a failure of the version: the server was restarted, or is unloading it."""
    router = TrafficRouter()
    plan = CanaryPlan("shadow", 1.0, 1, 9, 0)
    router.apply(TrafficSplit.preparing(plan).with_challenger(ready=True))
    async with Predictor(serving.address, "pets") as predictor:
        shadow = Shadow(predictor, router, lambda _: CLASSES, Counters(), head_of=no_head, busy=lambda: False)
        shadow.offer(photo(1), prediction(1))
        task = asyncio.create_task(shadow.run())
        await eventually(lambda: not router.split.ready)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_both_versions_answer_with_their_heads_of_the_group(serving):
    """Else every answer of a group with a head would count as a disagreement."""
    router = TrafficRouter()
    plan = CanaryPlan("shadow", 1.0, 2, 1, 0)
    router.apply(TrafficSplit.preparing(plan).with_challenger(ready=True))
    heads = {(1, "mirrored"): MIRROR}
    async with Predictor(serving.address, "pets") as predictor:
        shadow = Shadow(
            predictor,
            router,
            lambda _: CLASSES,
            Counters(),
            head_of=lambda version, group: heads.get((version, group)),
            busy=lambda: False,
        )
        task = asyncio.create_task(shadow.run())
        # The model takes blue for a dog; its head of this group calls it a cat, as version 2 did.
        shadow.offer(photo(1, "blue"), prediction(2, group="mirrored"))
        shadow.offer(photo(2, "blue"), prediction(2))
        await eventually(lambda: router.canary_report().compared == 2)
        assert router.canary_report().disagreed == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
