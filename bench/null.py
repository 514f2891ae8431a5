"""Measure the cost of the handler alone, with a model that does nothing; and the broker with C clients."""

import asyncio
import contextlib
import time
from pathlib import Path

from msgspec import structs

from bench.contestants import mosquitto_clients
from bench.figures import Figure, Goal
from bench.load import RequestFailedError
from bench.photos import NODE
from bench.pipeline import LIMIT, PER_PHOTO, SATURATED, Contest, figures
from bench.setting import Setting
from bench.ways import NOTE, WAYS
from bus.broker.process import local_broker
from schemas.topics import PHOTO

CLIENTS = "mosquitto's clients"
_PUBLISHERS = 8
_CAPACITY = "photos for a CPU-second of the handler"
_GOAL_PER_S = 1500.0
_GOAL_MS = 0.5
_PER_S = 60.0
_START_S = 25.0
_CLIENTS_S = 60.0
_CLIENTS_PHOTOS = 3200
"""Fewer than the queue limit of the broker per client, so that none is dropped."""


def _write(folder: Path, photo: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "photo.jpg").write_bytes(photo)


async def clients_per_s(folder: Path, photo: bytes, count: int) -> float:
    """Return how many photos per second C clients send through the broker to another one, at QoS 1.

    Raises:
        RequestFailedError: Not all arrived.
    """
    programs, environment = await asyncio.to_thread(mosquitto_clients)
    await asyncio.to_thread(_write, folder, photo)
    each = count // _PUBLISHERS
    with local_broker(folder / "broker") as broker:
        options = ("-p", str(broker.port), "-q", "1", "-t", PHOTO.name(node=NODE, device="camera"))
        listen = (str(programs / "mosquitto_sub"), *options, "-c", "-i", "bench")
        subscribing = await asyncio.create_subprocess_exec(*listen, "-E", env=environment)
        await subscribing.wait()
        words = (*listen, "-C", str(each * _PUBLISHERS), "-N")
        subscriber = await asyncio.create_subprocess_exec(
            *words, env=environment, stdout=asyncio.subprocess.DEVNULL
        )
        started_at = time.monotonic()
        send = (str(programs / "mosquitto_pub"), *options, "-f", str(folder / "photo.jpg"))
        publishers = [
            await asyncio.create_subprocess_exec(*send, "--repeat", str(each), env=environment)
            for _ in range(_PUBLISHERS)
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLIENTS_S):
                await subscriber.wait()
        took_s = time.monotonic() - started_at
        for process in (subscriber, *publishers):
            if process.returncode is None:
                process.kill()
            await process.wait()
    if subscriber.returncode:
        raise RequestFailedError(
            f"mosquitto_sub did not receive {count} photos: exit code {subscriber.returncode}"
        )
    return each * _PUBLISHERS / took_s


async def measure(setting: Setting) -> list[Figure]:
    """Measure the handler with a model that does nothing."""
    repeats = 1 if setting.quick else 3
    seconds = 2.0 if setting.quick else max(4.0, (setting.seconds / repeats - _START_S) / 6)
    contest = Contest(setting, "null", seconds, repeats, (), per_s=_PER_S)
    for repeat in range(repeats):
        count = 800 if setting.quick else _CLIENTS_PHOTOS
        per_s = await clients_per_s(setting.folder / f"clients-{repeat}", contest.photos[0], count)
        contest.table.add(SATURATED, CLIENTS, per_s)
    await contest.run()
    for way in WAYS:
        for spent_ms in contest.table.values[PER_PHOTO, f"{way.name}, handler"]:
            contest.table.add(_CAPACITY, way.name, 1000 / spent_ms)
    setting.note(NOTE)
    setting.note(
        f"`{LIMIT}` calls a model that does nothing; `{CLIENTS}` move the same photos from {_PUBLISHERS} "
        "publishers to one subscriber, without results. All parts and the load share the cores, so the "
        "processor time shows what a handler could do with a core of its own."
    )
    goals = {way.name: Goal(least=_GOAL_PER_S) for way in WAYS}
    made = figures(contest, goals=False)
    return contest.table.figures(_CAPACITY, "photos", goals=goals) + [_with_goal(one) for one in made]


def _with_goal(figure: Figure) -> Figure:
    """Return the cost of a photo at a low rate with its goal, any other figure as it is."""
    is_cost = figure.name.startswith(f"{PER_PHOTO} at ") and figure.of.endswith(", handler")
    return structs.replace(figure, goal=Goal(most=_GOAL_MS)) if is_cost else figure
