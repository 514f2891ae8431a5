"""Rules for a dataset of many photos: no page that lists photos reads all of them."""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest

from bus.mqtt.presence import now_ms
from cloud.dataset.store import Row, Store
from console.access.roles import Visitor
from console.pages.search import PER_PAGE
from tests.conftest import jpeg
from tests.console.access.test_access import Client
from tests.console.conftest import Running, running_console

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PHOTOS = 30_000
LABELLED = 2_000
CLASSES = ("cat", "dog", "fox")
MAX_BYTES = 6_000_000
"""Read by one page at most: a seventh of the pictures, and little more than the columns that it sorts by."""
MAX_ROWS = 3_000
"""Rows that one page gets at most: those of the newest labels, that doubts and progress are computed from."""
_BATCH = 10_000
_PICTURE_BYTES = 1_000


def fill(store: Store) -> None:
    """Store samples with small pictures that cannot be compressed, so that reading them would show."""
    generator, picture, now = np.random.default_rng(0), jpeg(1, (32, 24)), now_ms()
    human = {"human_by": "ada", "human_at_ms": now}
    for first in range(0, PHOTOS, _BATCH):
        vectors = generator.normal(0, 1, (_BATCH, 16)).astype("<f4")
        store.upsert(
            Row(
                photo_id=f"{number:032x}", image=picture + secrets.token_bytes(_PICTURE_BYTES),
                width=32, height=24, received_at_ms=now - (PHOTOS - number) * 1000,
                node=f"edge-{number % 4}", device=f"pi-{number % 40}",
                lane=("hard", "auto", "audit")[number % 3],
                dhash=f"{number:016x}", edge_label=CLASSES[number % 3], confidence=0.5 + number % 40 / 100,
                entropy=0.9, margin=0.1, model="pets", model_version=1, scores=dict.fromkeys(CLASSES, 1 / 3),
                embedding=vectors[number - first].tobytes(),
                **(human | {"human_label": CLASSES[number % 2]} if PHOTOS - number <= LABELLED else {}),
            )
            for number in range(first, first + _BATCH)
        )  # fmt: skip


class Read:
    """What was read from the dataset: rows that its methods gave, and bytes that this process read."""

    rows = 0
    bytes_read = 0


@contextmanager
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    """Count what is read during a block."""
    read = Read()

    def counting(name: str):
        method = getattr(Store, name)

        def counted(*arguments: object, **keywords: object) -> object:
            found = method(*arguments, **keywords)
            if isinstance(found, dict):
                read.rows += len(found)
                return found

            def rows():
                for row in found:
                    read.rows += 1
                    yield row

            return rows()

        return counted

    with monkeypatch.context() as patched:
        for name in ("scan", "find"):
            patched.setattr(Store, name, counting(name))
        before = _bytes_read()
        yield read
        read.bytes_read = _bytes_read() - before


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().splitlines()[0].split()[1])


@pytest.fixture(scope="module")
def console(tmp_path_factory, mosquitto) -> Iterator[Running]:
    """A console whose lists and searches in the background are made."""
    folder = tmp_path_factory.mktemp("many")
    fill(Store.open(str(folder / "dataset.lance")))
    with running_console(folder, mosquitto, 0) as running:
        shown = running.shown
        running.call(shown.desk.next_photos(Visitor("ada", "operator", "session"), 1))
        shown.similar.refresh()
        shown.insights.latest()
        running.wait_until(lambda: shown.insights.latest() is not None)
        yield running


@pytest.fixture(scope="module")
def client(console) -> Client:
    """A browser without script, of a person who opened the one-time address."""
    opened = Client(console)
    opened.ask("GET", console.address.removeprefix(console.url))
    return opened


PLACE = f"{int(time.time() * 1000) - 20_000_000}-{'0' * 32}"
PAGES = {
    "newest": "/photos",
    "deep": f"/photos?before={PLACE}",
    "deepest": f"/photos?before=1-{'0' * 32}",
    "node": "/photos?node=edge-3",
    "device, deep": f"/photos?device=pi-7&before={PLACE}",
    "label": "/photos?label=cat",
    "answer, lane": "/photos?answer=fox&lane=auto",
    "nothing": "/photos?label=owl&node=edge-1&device=pi-1",
    "alike": f"/photos/{PHOTOS - 1:032x}/alike",
    "alike to an old one": f"/photos/{5:032x}/alike",
    "review": "/review",
    "review in a grid": "/review?view=grid",
    "doubts": "/doubts",
    "progress": "/progress",
    "quarantine": "/quarantine",
    "damage": "/quarantine/damage",
    "picture": f"/pictures/{77:032x}/320",
}


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES.keys())
def test_a_page_reads_a_small_part_of_the_dataset(client, monkeypatch, path):
    """Its own rows and no other one, and no picture that it does not show, however deep or filtered."""
    with reading(monkeypatch) as read:
        status, _ = client.ask("GET", path)
    assert status == HTTPStatus.OK
    assert read.rows <= (PER_PAGE + 1 if path.startswith("/photos?") else MAX_ROWS)
    assert read.bytes_read < MAX_BYTES


def test_every_photo_is_reached_page_by_page(client):
    """Each page begins where the one before it ended: none is shown twice."""
    path, seen = "/photos?device=pi-7&lane=hard", []
    while path and len(seen) < 5 * PER_PAGE:
        status, body = client.ask("GET", path)
        assert status == HTTPStatus.OK
        seen += re.findall(r"/photos/([0-9a-f]{32})/alike", body)
        following = re.search(r'href="([^"]*before=[^"]*)" rel="next"', body)
        path = following[1].replace("&amp;", "&") if following else ""
    assert len(seen) == len(set(seen)) == 5 * PER_PAGE
    assert seen == sorted(seen, reverse=True)
