"""Start the laboratory, publish photos at each node, and print what became of pods, photos and samples."""

import asyncio
import tempfile
import time
from pathlib import Path

from tests.pods import rollout
from tests.pods.cameras import Cameras
from tests.pods.lab import PodLab
from tests.pods.pod import table

_INTERVAL_S = 0.25


async def show(lab: PodLab, photos: int) -> None:
    """Start everything, send photos and print the tables."""
    await lab.start()
    await asyncio.gather(*(lab.join(name) for name in lab.edges))
    await lab.deploy()
    print((await first_release(lab, tuple(lab.edges))).strip())
    await lab.ready()
    print(await pods(lab), flush=True)
    print(await photos_of(lab, photos))


async def first_release(lab: PodLab, nodes: tuple[str, ...]) -> str:
    """Release version 1 to nodes, as soon as the cloud can; return the command's output."""
    await lab.in_cloud_ready()
    await rollout.harvest_all(lab, nodes)
    return await rollout.release(lab, 1, nodes)


async def pods(lab: PodLab) -> str:
    """Return the table of pods."""
    return table(await lab.pods())


async def photos_of(lab: PodLab, count: int) -> str:
    """Let a camera at each node take photos; return what became of them."""
    with tempfile.TemporaryDirectory() as folder:
        cameras = Cameras(lab, Path(folder), _INTERVAL_S, tuple(lab.edges))
        try:
            began = time.monotonic()
            await cameras.start()
            first_s = await cameras.answers()
            await cameras.answers(max(count - 1, 1))
            ledger = await cameras.settle()
        finally:
            await cameras.kill()
    lines = [
        ("photos", ledger.photos),
        ("answered", ledger.answered),
        ("lost", ledger.photos_lost),
        ("samples", ledger.samples),
        ("stored", ledger.rows),
        ("samples lost", ledger.samples_lost),
        ("samples doubled", ledger.samples_doubled),
        ("first result, s after the camera's start", f"{first_s:.1f}"),
        ("median from photo to result, ms", f"{cameras.median_ms():.0f}"),
        ("all stored, s after the camera's start", f"{time.monotonic() - began:.0f}"),
    ]
    return "\n".join(
        f"{what:<42} {value}" for what, value in [*lines, *[("WRONG", one) for one in ledger.verdict]]
    )
