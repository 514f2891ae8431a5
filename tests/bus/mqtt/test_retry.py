import asyncio

from bus.metrics import Counters
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence
from bus.mqtt.retry import retry_until_ok
from schemas.errors import TransientError
from schemas.topics import STATUS
from tests.conftest import eventually, running
from tests.nodes import NODE


async def test_a_trouble_is_outlasted_and_said(address):
    """An attempt is repeated until it succeeds; meanwhile the Status is degraded and says why."""
    watcher = Bus(address, transient_client_id("watcher"))
    statuses = watcher.subscribe(STATUS, node=NODE, name="edge")
    bus = Bus(address, transient_client_id("edge"), presence=Presence(NODE, "edge"), counters=Counters())
    told, said = [], []

    async def attempt() -> str:
        if len(told) < 3:
            raise TransientError("disk", expected="room", got=f"none, {len(told)}")
        return "done"

    async with running(watcher, bus):
        assert await retry_until_ok(bus, "disk", attempt, told.append) == "done"
        while len(said) < 5:
            delivery = await statuses.queue.get()
            delivery.ack()
            said.append((delivery.message().state, delivery.message().reason))
    assert [str(error)[-1] for error in told] == ["0", "1", "2"]
    reasons = [f"disk: expected room, got none, {number}" for number in range(3)]
    assert said == [("online", None), *(("degraded", reason) for reason in reasons), ("online", None)]


async def test_the_status_is_online_when_the_last_trouble_is_over(address):
    """Two parts in trouble: the Status stays degraded until both work."""
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
    assert bus._presence.trouble() is None
