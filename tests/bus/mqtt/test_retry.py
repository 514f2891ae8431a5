import asyncio

from bus.metrics import Counters
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence
from bus.mqtt.retry import retry_until_ok
from schemas.errors import TransientError
from schemas.topics import STATUS
from tests.conftest import eventually, running
from tests.nodes import NODE


async def test_an_attempt_is_repeated_until_it_succeeds(address):
    """Until the attempt succeeds the Status is degraded, with the reason of the last failure."""
    watcher = Bus(address, transient_client_id("watcher"))
    statuses = watcher.subscribe(STATUS, node=NODE, name="edge")
    bus = Bus(address, transient_client_id("edge"), presence=Presence(NODE, "edge"), counters=Counters())
    errors, reported = [], []

    async def attempt() -> str:
        if len(errors) < 3:
            raise TransientError("disk", expected="room", got=f"none, {len(errors)}")
        return "done"

    async with running(watcher, bus):
        assert await retry_until_ok(bus, "disk", attempt, errors.append) == "done"
        while len(reported) < 5:
            delivery = await statuses.queue.get()
            delivery.ack()
            reported.append((delivery.message().state, delivery.message().reason))
    assert [str(error)[-1] for error in errors] == ["0", "1", "2"]
    reasons = [f"disk: expected room, got none, {number}" for number in range(3)]
    assert reported == [("online", None), *(("degraded", reason) for reason in reasons), ("online", None)]


async def test_the_status_is_degraded_until_every_part_has_recovered(address):
    """With two degraded parts the Status stays degraded until both work."""
    bus = Bus(address, transient_client_id("edge"), presence=Presence(NODE, "edge"), counters=Counters())
    broken = {"disk", "model"}

    async def attempt(part: str) -> None:
        if part in broken:
            raise TransientError(part, expected="to work", got="a failure")

    async with running(bus), asyncio.TaskGroup() as tasks:
        for part in sorted(broken):
            tasks.create_task(retry_until_ok(bus, part, lambda part=part: attempt(part)))
        await eventually(lambda: set(bus._presence._problems) == {"disk", "model"})
        broken.remove("disk")
        await eventually(lambda: set(bus._presence._problems) == {"model"})
        assert bus.unready_reason() == "model: expected to work, got a failure"
        broken.remove("model")
    assert bus._presence.degraded_reason() is None
