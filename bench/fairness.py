"""Measure how much a flooding device delays a normal one: `python -m bench.fairness`.

Broker, model server, edge and flood are separate processes. A normal device sends photos at a fixed interval,
alternately without and with the flood, and its latencies are compared. With `--hostile N`, the flood is N
devices that send photos which take long to decode, instead of one that sends many.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.hostile import hostile
from bench.photos import NODE, payloads
from bus import log
from bus.broker.process import free_port, local_broker
from bus.config import Broker
from bus.mqtt.client import Bus, transient_client_id
from demo.processes import Processes
from schemas.messages import Status
from schemas.topics import PHOTO, RESULT, STATUS

_STATUS_S = 120.0
_ANSWER_S = 60.0
_CONCURRENCY = 20
_REPORTED = ("photo.", "predict.", "result.", "bus.")


@dataclass(frozen=True, slots=True)
class Plan:
    """Numbers of rounds and of photos per phase, pause between photos, and what disturbs: see `main`."""

    rounds: int
    photos: int
    pause_s: float
    flood_per_s: float
    hostile: int = 0
    scans: int = 0

    @property
    def disturbance(self) -> tuple[str, ...]:
        """Options of the process that disturbs."""
        if self.hostile:
            return ("--hostile", str(self.hostile), "--scans", str(self.scans))
        return ("--flood-per-s", str(self.flood_per_s))


async def flood(port: int, per_s: float) -> None:
    """Publish photos at a rate, or as fast as the broker accepts them if it is 0, until killed."""
    bus = Bus(Broker(port=port), transient_client_id("flood"))
    photos, topic = payloads("flood"), PHOTO.name(node=NODE, device="flood")
    started_at, sent = time.monotonic(), itertools.count(1)

    async def publish() -> None:
        while True:
            number = next(sent)
            # By the schedule, so that a slow publish is caught up and the rate holds on average.
            if per_s:
                await asyncio.sleep(started_at + number / per_s - time.monotonic())
            await bus.publish_bytes(topic, next(photos))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(bus.run())
        await bus.connected()
        for _ in range(_CONCURRENCY):
            tasks.create_task(publish())


class Calm:
    """A device that sends a photo, waits for its result, pauses, and sends the next one.

    Args:
        port: Port of the broker.
    """

    def __init__(self, port: int) -> None:
        self.bus = Bus(Broker(port=port), transient_client_id("calm"))
        self._photos = payloads("calm")
        self._results = self.bus.subscribe(RESULT, node=NODE, device="calm")
        self._statuses = self.bus.subscribe(STATUS, node=NODE, name="edge")

    async def until(self, condition: Callable[[Status], bool]) -> Status:
        """Wait for a Status of the edge that satisfies a condition."""
        async with asyncio.timeout(_STATUS_S):
            async for delivery in self._statuses:
                delivery.ack()
                if condition(status := delivery.message()):
                    return status
        raise AssertionError("a subscription has no end")

    async def request(self, photos: int, pause_s: float) -> list[float]:
        """Return the time from each photo to its result, in milliseconds."""
        took_ms = []
        for payload in itertools.islice(self._photos, photos):
            started_at = time.monotonic()
            await self.bus.publish_bytes(PHOTO.name(node=NODE, device="calm"), payload)
            async with asyncio.timeout(_ANSWER_S):
                await self._answered()
            took_ms.append((time.monotonic() - started_at) * 1000)
            await asyncio.sleep(pause_s)
        return took_ms

    async def _answered(self) -> None:
        async for delivery in self._results:
            delivery.ack()
            if delivery.message().status != "deferred":
                return


async def measure(plan: Plan, folder: Path) -> dict[str, object]:
    """Run everything and return the comparison."""
    base, serving = folder / "models", free_port()
    # In a subprocess: TensorFlow in this process would compete with the handler for the cores.
    writing = [sys.executable, "-m", "bench.network", str(base / "pets/1")]
    await asyncio.to_thread(subprocess.run, writing, check=True, capture_output=True)
    with local_broker(folder / "broker") as broker:
        config = folder / "edge.toml"
        config.write_text(
            f'node = "{NODE}"\nbroker.port = {broker.port}\nserving = "127.0.0.1:{serving}"\n'
            f'models_dir = "{base}"\nstate_dir = "{folder / "state"}"\n',
            encoding="utf-8",
        )
        server = (f"--port={serving}", "--model_name=pets", f"--model_base_path={base / 'pets'}")
        calm = Calm(broker.port)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(calm.bus.run())
            async with Processes(folder / "logs") as processes:
                await processes.start("modelserver", "modelserver", *server)
                await processes.start("edge", "edge", "--config", str(config))
                await calm.until(
                    lambda status: status.model is not None and status.model.state == "available"
                )
                took = await _alternate(calm, broker.port, plan)
            counters = (await calm.until(lambda status: status.state == "offline")).counters
            running.cancel()
    return _report(took, counters)


async def _alternate(calm: Calm, port: int, plan: Plan) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {"quiet": [], "flood": []}
    settle = plan.photos // 4  # to settle after each change; not counted
    for _ in range(plan.rounds):
        await calm.request(settle, plan.pause_s)
        took["quiet"] += await calm.request(plan.photos, plan.pause_s)
        words = ("-m", "bench.fairness", "--flood", str(port), *plan.disturbance)
        flood_process = await asyncio.create_subprocess_exec(sys.executable, *words)
        try:
            await calm.request(settle, plan.pause_s)
            took["flood"] += await calm.request(plan.photos, plan.pause_s)
        finally:
            flood_process.kill()
            await flood_process.wait()
    return took


def _report(took: dict[str, list[float]], counters: dict[str, int]) -> dict[str, object]:
    percentiles = {
        name: {f"p{at}_ms": round(statistics.quantiles(times, n=100)[at - 1], 1) for at in (50, 90, 99)}
        for name, times in took.items()
    }
    return {
        "calm": percentiles,
        "photos_each": len(took["quiet"]),
        "ratio_p50": round(percentiles["flood"]["p50_ms"] / percentiles["quiet"]["p50_ms"], 2),
        "ratio_p99": round(percentiles["flood"]["p99_ms"] / percentiles["quiet"]["p99_ms"], 2),
        "counters": {name: count for name, count in counters.items() if name.startswith(_REPORTED)},
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=4, help="rounds, each without and with the flood (default: 4)"
    )
    parser.add_argument("--photos", type=int, default=100, help="photos in each phase (default: 100)")
    parser.add_argument(
        "--pause-s", type=float, default=0.2, help="seconds from a result to the next photo (default: 0.2)"
    )
    parser.add_argument(
        "--flood-per-s",
        type=float,
        default=450.0,
        help="photos per second of the flood; 0: no limit (default: 450)",
    )
    parser.add_argument(
        "--hostile", type=int, default=0, help="hostile devices instead of a flood (default: 0)"
    )
    parser.add_argument(
        "--scans",
        type=int,
        default=14,
        help="additional scans of a hostile photo; 20 in all are accepted (default: 14)",
    )
    parser.add_argument("--flood", type=int, metavar="PORT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    log.configure("error")
    if arguments.flood and arguments.hostile:
        asyncio.run(hostile(arguments.flood, arguments.hostile, arguments.scans))
        return
    if arguments.flood:
        asyncio.run(flood(arguments.flood, arguments.flood_per_s))
        return
    plan = Plan(
        arguments.rounds,
        arguments.photos,
        arguments.pause_s,
        arguments.flood_per_s,
        arguments.hostile,
        arguments.scans,
    )
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(measure(plan, Path(folder)))
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
