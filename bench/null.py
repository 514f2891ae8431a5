"""Measure the cost of the handler alone, with a model that does nothing; and the broker with C clients."""

import asyncio
import contextlib
import time
from pathlib import Path

from bench.contestants import mosquitto_clients
from bench.figures import Figure, Goal
from bench.load import RequestFailedError
from bench.photos import NODE
from bench.pipeline import LIMIT, OURS, PER_PHOTO, SATURATED, Contest, figures
from bench.setting import Setting
from bus.broker.process import local_broker
from schemas.topics import PHOTO

CLIENTS = "mosquitto's clients"
_PUBLISHERS = 8
_CAPACITY = "photos for a CPU-second of the handler"
_GOAL_PER_S = 800.0
_DECODING = "every photo decoded"
_DECODING_REPEATS = 2
_DECODE_ALL = {
    "harvest.auto": False, "harvest.audit_share": 0.0, "harvest.hard_entropy": 1.0,
}  # fmt: skip
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
    seconds = 2.0 if setting.quick else max(4.0, (setting.seconds / repeats - _START_S) / 7)
    contest = Contest(setting, "null", seconds, repeats, (25, 50))
    for repeat in range(repeats):
        count = 800 if setting.quick else _CLIENTS_PHOTOS
        per_s = await clients_per_s(setting.folder / f"clients-{repeat}", contest.photos[0], count)
        contest.table.add(SATURATED, CLIENTS, per_s)
    await contest.run()
    decoding = Contest(
        Setting(setting.folder / "looking", setting.out, setting.seconds, setting.quick),
        "null", seconds, min(repeats, _DECODING_REPEATS), (), handler=_DECODE_ALL,
    )  # fmt: skip
    await decoding.run()
    for name, measured in ((OURS, contest), (f"{OURS}, {_DECODING}", decoding)):
        for spent_ms in measured.table.values[PER_PHOTO, f"{OURS}, handler"]:
            if spent_ms:  # 0 in a quick run, if it is less than a clock tick
                contest.table.add(_CAPACITY, name, 1000 / spent_ms)
    setting.note(
        "At saturation the harvest caps are soon exhausted, and then the handler decodes no photo; "
        f"`{OURS}, {_DECODING}` has rules that decode each photo for its hash and harvest none."
    )
    setting.note(
        f"`{LIMIT}` calls a model that does nothing; `{CLIENTS}` move the same photos from {_PUBLISHERS} "
        "publishers to one subscriber, without results. All parts and the load share the cores, so the "
        "processor time shows what a handler could do with a core of its own. A share of the bare loop's "
        "limit is far more than the pipeline can process here: its backlog in the open loop only grows."
    )
    capacity = contest.table.figures(_CAPACITY, "photos", goals={OURS: Goal(least=_GOAL_PER_S)})
    return capacity + figures(contest, goals=False)
