"""Measure what a browser waits for at each page of the console: `python -m bench.first_paint`.

A real console on a real broker, with a dataset of 100 000 samples, and Chromium with an empty cache. Prints a
Markdown table: first contentful paint in milliseconds (median and maximum), and kilobytes without pictures.
"""

import argparse
import asyncio
import io
import os
import secrets
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import structlog
from PIL import Image

from bench import procfs
from bench.machine import ROOT, facts
from bus.broker.process import local_broker
from bus.mqtt.presence import now_ms
from bus.outbox.sqlite import Database
from cloud.dataset.store import Row, Store
from console.access.audit_trail import Entry, write
from console.service import MIGRATIONS

PAGES = (
    "/", "/review", "/review?view=grid", "/progress", "/models", "/rollout", "/fleet", "/policy", "/photos",
    f"/photos/{1:032x}/alike", "/doubts", "/quarantine", "/events", "/audit",
)  # fmt: skip
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_CLASSES = ("cat", "dog", "fox")
_DIMENSIONS = 64
_LABELLED = 3_000
_ENTRIES = 10_000
_BATCH = 10_000
_MINUTE_MS = 60_000
_START_S = 300.0
# Not `wait_for_function`, which evaluates text in the page: the console's Content-Security-Policy forbids it.
_UNTIL_PAINTED = """() => new Promise((painted) => {
    const watch = (list) => list.getEntriesByName("first-contentful-paint").length && painted();
    new PerformanceObserver(watch).observe({ type: "paint", buffered: true });
})"""
_MEASURE = """() => {
    const sized = performance.getEntries().filter((one) =>
        one.entryType === "navigation" || ["link", "script"].includes(one.initiatorType));
    return [performance.getEntriesByName("first-contentful-paint")[0].startTime,
            sized.reduce((sum, one) => sum + one.encodedBodySize, 0)];
}"""


class Paint(NamedTuple):
    """One visit of a page."""

    paint_ms: float
    page_bytes: int


def fill(dataset: Path, samples: int) -> None:
    """Store samples, the newest 3000 of them labelled."""
    store, generator = Store.open(str(dataset)), np.random.default_rng(0)
    pictures = [_picture(seed) for seed in range(64)]
    now = now_ms()
    for first in range(0, samples, _BATCH):
        numbers = range(first, min(samples, first + _BATCH))
        store.upsert([_sample(number, samples - number, pictures, generator, now) for number in numbers])
        print(f"{numbers.stop} of {samples} samples", file=sys.stderr)


def _sample(
    number: int, age: int, pictures: Sequence[bytes], generator: np.random.Generator, now: int
) -> Row:
    shown, at_ms = number % len(_CLASSES), now - age * _MINUTE_MS
    embedding = generator.normal(0, 1, _DIMENSIONS).astype("<f4")
    embedding[shown] += 3
    human = _CLASSES[shown] if age <= _LABELLED else None
    return Row(
        photo_id=f"{number:032x}", image=pictures[number % len(pictures)], width=160, height=120,
        received_at_ms=at_ms, taken_at_ms=at_ms, node=f"edge-{number % 4}", device=f"pi-{number % 40}",
        lane="hard", dhash=f"{secrets.randbits(64):016x}", edge_label=_CLASSES[shown],
        confidence=0.5 + number % 40 / 100, entropy=0.9, margin=0.1, model="pets", model_version=1,
        scores={name: 1 / len(_CLASSES) for name in _CLASSES}, embedding=embedding.tobytes(),
        human_label=human, human_by=human and "ada", human_at_ms=at_ms if human else None,
    )  # fmt: skip


def _picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((160, 120)).save(out, "JPEG", quality=60)
    return out.getvalue()


async def fill_audit_trail(state: Path) -> None:
    """Record labels, so that the page of the audit trail is as long as it gets."""
    entries = [
        Entry.made(now_ms() - number * 1000, "ada", "192.0.2.7", "label.given", _labelled(number))
        for number in range(_ENTRIES)
    ]

    def write_all(connection: sqlite3.Connection) -> None:
        for one in entries:
            write(connection, one)

    async with Database(state / "console.db", MIGRATIONS) as database:
        await database.run(write_all)


def _labelled(number: int) -> dict[str, object]:
    photos = [f"{number * 9 + at:032x}" for at in range(9)]
    return {"label": _CLASSES[number % len(_CLASSES)], "photos": photos}


@contextmanager
def running_console(folder: Path, dataset: Path, port: int) -> Iterator[tuple[str, int]]:
    """Run `gleaner console` and yield its one-time address and process id."""
    words = [
        "-m", "cli.main", "console", "--broker", f"127.0.0.1:{port}",
        "--dataset", str(dataset), "--models", str(folder / "models"),
        "--state-dir", str(folder / "console"), "--cache", str(folder / "cache"), "--listen", "127.0.0.1:0",
    ]  # fmt: skip
    with (folder / "console.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=log, stderr=log)  # noqa: S603  # ours
    try:
        deadline, address = time.monotonic() + _START_S, folder / "console" / "address"
        while not address.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "console.log").read_text()[-2000:])
            time.sleep(0.05)
        yield address.read_text("utf-8").strip(), process.pid
    finally:
        process.terminate()
        process.wait()


def visit(address: str, visits: int) -> dict[str, list[Paint]]:
    """Open each page `visits` times, each time with an empty cache."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # of the tests' dependencies

    path = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if path is None:
        raise RuntimeError("there is no Chromium: apt install chromium")
    base, found = address.partition("/?")[0], dict[str, list[Paint]]()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context()
        context.new_page().goto(address)
        cookies = [dict(one) for one in context.cookies()]
        for round_ in range(visits + 1):
            for name in PAGES:
                fresh = browser.new_context(base_url=base)
                fresh.add_cookies(cookies)  # type: ignore[arg-type]  # as `cookies` gave them
                page = fresh.new_page()
                page.set_default_timeout(_START_S * 1000)
                page.goto(name)
                page.evaluate(_UNTIL_PAINTED)
                if round_:  # the first visit makes the console load what it then keeps
                    found.setdefault(name, []).append(Paint(*page.evaluate(_MEASURE)))
                fresh.close()
        browser.close()
    return found


def table(found: dict[str, list[Paint]]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| page | first paint, ms | at most | kB |"
    yield "|---|---|---|---|"
    for name, visits in found.items():
        paints = [one.paint_ms for one in visits]
        size = max(one.page_bytes for one in visits) / 1000
        yield f"| `{name}` | {statistics.median(paints):.0f} | {max(paints):.0f} | {size:.0f} |"


def main() -> None:
    """Fill a dataset, unless there is one, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.first_paint", description=__doc__)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--visits", type=int, default=7, help="of each page")
    parser.add_argument("--dataset", type=Path, help="where the dataset is, or is made and left")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gleaner-paint-") as name:
        folder = Path(name)
        dataset = options.dataset or folder / "dataset.lance"
        if not dataset.exists():
            fill(dataset, options.samples)
        with structlog.testing.capture_logs():  # it logs each entry
            asyncio.run(fill_audit_trail(folder / "console"))
        with (
            local_broker(folder / "broker") as broker,
            running_console(folder, dataset, broker.port) as (address, pid),
        ):
            found = visit(address, options.visits)
            resident_mb = procfs.resident_bytes(pid) / 1e6
    for line in table(found):
        print(line)
    machine = facts()
    print(f"console: {resident_mb:.0f} MB resident; {machine.processor}, {machine.cores} cores,", end=" ")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
