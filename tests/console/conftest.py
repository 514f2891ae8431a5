"""A running console on a real mosquitto, with a real dataset and collector, and a browser to open it."""

import asyncio
import os
import secrets
import shutil
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from msgspec import structs

from bus.broker.locate import Mosquitto
from bus.broker.process import BrokerProcess
from bus.config import Broker
from bus.files.file_lock import exclusive_lock
from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from cloud.collector import collector
from cloud.collector.config import CollectorConfig
from cloud.dataset.store import Row, Store
from console import service
from console.access import accounts
from console.config import ConsoleConfig
from console.context import Console
from demo.synthetic import CLASSES, draw
from schemas.codec import content_id
from schemas.messages import Event, Result, Status
from schemas.topics import EVENT, RESULT, STATUS
from tests.conftest import DEADLINE_S, jpeg

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
INSTALL = ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]
DRAWN = 12
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}


class Running:
    """A console with its broker and collector, all in one event loop in its own thread.

    Args:
        folder: For the state of all.
        broker: Already started.
        config: Of the console.
    """

    def __init__(self, folder: Path, broker: BrokerProcess, config: ConsoleConfig) -> None:
        self.folder = folder
        self.broker = broker
        self.config = config
        self.store = Store.open(config.dataset)
        self.bus = Bus(config.broker, f"test-{secrets.token_hex(4)}")
        self.events = self.bus.subscribe(EVENT)
        self.feedback = self.bus.subscribe_raw("gleaner/v1/feedback/#")
        self.shown: Console
        self.address = ""
        """A one-time address, or the address of the console where people have accounts."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="console under test")
        self._tasks: list[Future[Any]] = []

    @property
    def url(self) -> str:
        """The console's address without a path."""
        return self.address.partition("/?")[0]

    def start(self) -> None:
        """Start everything and wait until the console is served and connected."""
        self._thread.start()
        self.address = self.call(self._start())

    async def _start(self) -> str:
        ready: asyncio.Queue[tuple[str, Console]] = asyncio.Queue()
        collected = CollectorConfig(broker=self.config.broker, dataset=self.config.dataset)
        self._spawn(self.bus.run())
        self._spawn(collector.run(collected))
        self._spawn(service.run(self.config, on_ready=lambda *served: ready.put_nowait(served)))
        await self.bus.connected()
        address, self.shown = await ready.get()
        await self.shown.bus.connected()
        return address

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.run_coroutine_threadsafe(work, self._loop))

    def stop(self) -> None:
        """Cancel everything, and raise what failed."""
        for task in self._tasks:
            task.cancel()
        self.call(self._settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _settle(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop and return its result."""
        doing = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return doing.result(DEADLINE_S)
        except TimeoutError:
            doing.cancel()  # else `stop` would wait for it, and the whole run with it
            raise

    def answer(self, **fields: object) -> Result:
        """Publish the answer of an edge to a photo."""
        result = Result(
            photo_id=secrets.token_hex(16),
            node="edge-1",
            device="pi-1",
            status="ok",
            label="cat",
            confidence=0.93,
            scores={"cat": 0.93, "dog": 0.07},
            model="pets",
            model_version=1,
            answered_at_ms=now_ms(),
        )
        result = structs.replace(result, **fields)
        self.call(self.bus.publish(RESULT, result, node=result.node, device=result.device))
        return result

    def report(self, **fields: object) -> None:
        """Publish the status of a component."""
        status = Status(
            node="edge-1",
            name="edge",
            state="online",
            at_ms=now_ms(),
            since_ms=now_ms(),
            software="1",
            run_id="1",
        )
        status = structs.replace(status, **fields)
        self.call(self.bus.publish(STATUS, status, node=status.node, name=status.name))

    def happen(self, event: str, **fields: Any) -> None:
        """Publish an event of the trainer."""
        made = Event(node="cloud", name="trainer", event=event, at_ms=now_ms(), **fields)
        self.call(self.bus.publish(EVENT, made, node="cloud", name="trainer"))

    def labels(self) -> dict[str, tuple[str, str]]:
        """Return human label and its giver by photo."""
        rows = self.store.scan(["photo_id", "human_label", "human_by"], where="human_label IS NOT NULL")
        return {str(row["photo_id"]): (str(row["human_label"]), str(row["human_by"])) for row in rows}

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, checked whenever an event arrives or a little time has passed."""
        self.call(self._until(condition))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not await asyncio.to_thread(condition):
            try:
                async with asyncio.timeout(0.1):
                    await self.events.queue.get()
            except TimeoutError:
                continue


def sample(number: int, **fields: Any) -> Row:
    """Return a photo as a harvested sample, unlabelled."""
    shown = CLASSES[number % len(CLASSES)]
    # Drawings are nice to look at, but take a while.
    image = draw(shown, number) if number < DRAWN else jpeg(number)
    made: dict[str, Any] = {
        "photo_id": content_id(image), "image": image, "width": 320, "height": 240,
        "received_at_ms": now_ms(), "node": "edge-1", "device": f"pi-{number % 3 + 1}", "lane": "hard",
        "dhash": f"{secrets.randbits(64):016x}", "edge_label": shown, "confidence": 0.5 + number % 40 / 100,
        "entropy": 0.9, "margin": 0.1, "model": "pets", "model_version": 1,
        "scores": {"cat": 0.5, "dog": 0.5},
    }  # fmt: skip
    return Row(**made | fields)


@pytest.fixture(scope="session", autouse=True)
def quick_passwords() -> Iterator[None]:
    """Hash passwords in no time: a hash and each login would take 0.2 s of a core, which is their purpose."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        yield


@contextmanager
def running_console(folder: Path, program: Mosquitto, samples: int = 40, **fields: Any) -> Iterator[Running]:
    """Run a console with some samples for the length of a block.

    Args:
        folder: For the state of all.
        program: The mosquitto.
        samples: How many samples are in the dataset.
        fields: Of its configuration.
    """
    broker = BrokerProcess(folder / "broker", program=program)
    broker.start()
    config = ConsoleConfig(**{
        "broker": Broker(port=broker.port),
        "listen": "127.0.0.1:0",
        "dataset": str(folder / "dataset.lance"),
        "models": str(folder / "models"),
        "state_dir": str(folder / "console"),
        "undo_s": 0.0,
    } | fields)  # fmt: skip
    Store.open(config.dataset).upsert([sample(number) for number in range(samples)])
    console = Running(folder, broker, config)
    console.start()
    try:
        yield console
    finally:
        console.stop()
        broker.stop()


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory, mosquitto: Mosquitto) -> Iterator[Running]:
    """One console for a test module, opened by a one-time address."""
    with running_console(tmp_path_factory.mktemp("console"), mosquitto) as running:
        yield running


def chromium() -> str:
    """Return the path of Chromium, installed first where that is possible; else skip the tests."""
    if (found := next(filter(None, map(shutil.which, CHROMIUM)), None)) is not None:
        return found
    if os.geteuid() or shutil.which("apt-get") is None:
        pytest.skip(f"there is no Chromium, and only root on Debian can install it: {' '.join(INSTALL)}")
    # Other test processes may come to the same conclusion.
    with exclusive_lock(Path("/var/tmp/gleaner-chromium.lock"), timeout_s=600):
        if shutil.which(CHROMIUM[0]) is None:
            subprocess.run(["apt-get", "update", "--quiet"], check=False, capture_output=True)
            done = subprocess.run(INSTALL, check=False, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"Chromium could not be installed: {done.stderr.strip()[-200:]}")
    return str(shutil.which(CHROMIUM[0]))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium for a test module, driven by Playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = chromium()
    with api.sync_playwright() as playwright:
        # Without a sandbox, which root has none of; the pages are our own.
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def cookies(browser: Any, console: Running) -> list[dict[str, Any]]:
    """The cookies of a person who opened the one-time address."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(console.address)
    found = context.cookies()
    context.close()
    return found


@pytest.fixture
def page(browser: Any, console: Running, cookies: list[dict[str, Any]]) -> Iterator[Any]:
    """A page of a logged-in person on a wide screen; a script error in it fails the test."""
    context = browser.new_context(base_url=console.url, viewport=DESKTOP, locale="en-GB")
    context.add_cookies(cookies)
    with watched(context.new_page()) as opened:
        yield opened
    context.close()


@pytest.fixture
def phone(browser: Any, console: Running, cookies: list[dict[str, Any]]) -> Iterator[Any]:
    """A page of a logged-in person on a phone with touch."""
    context = browser.new_context(
        base_url=console.url,
        viewport=PHONE,
        device_scale_factor=2,
        is_mobile=True,
        has_touch=True,
        locale="en-GB",
    )
    context.add_cookies(cookies)
    with watched(context.new_page()) as opened:
        yield opened
    context.close()


def is_elsewhere(url: str) -> bool:
    """Return whether a page asks something of another machine: the console works without internet."""
    return urllib.parse.urlsplit(url).hostname != "127.0.0.1"


@contextmanager
def watched(page: Any) -> Iterator[Any]:
    """Fail on script errors, violations of the Content-Security-Policy, and requests to elsewhere."""
    problems: list[str] = []
    page.on("request", lambda one: problems.append(one.url) if is_elsewhere(one.url) else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda said: problems.append(said.text) if "Content Security Policy" in said.text else None,
    )
    page.set_default_timeout(DEADLINE_S * 1000)
    yield page
    assert problems == []
