"""The whole loop as a person in a browser sees it: label, watch it learn, watch a rollout, send it back."""

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest
from msgspec import structs

from bus.broker.process import BrokerProcess
from bus.config import Broker
from bus.mqtt.presence import now_ms
from cli.main import main
from cloud.dataset.store import Store
from cloud.registry.registry import Registry
from cloud.registry.rollout_state import RolloutFile
from cloud.rollout.options import RolloutOptions, new_rollout
from schemas.policy_rules import HarvestRules
from tests.cloud import tiny
from tests.conftest import DEADLINE_S, eventually
from tests.console.conftest import DESKTOP, watched
from tests.console.test_review import expect
from tests.nodes import Command, Observer, edge_config, enveloped, photo, photo_id, toml
from tests.serving import QUIET, ModelServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # a dozen processes: on a busy machine minutes
    # Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*"),
]

COLOURS = ("blue", "red")
DEVICES = tuple(f"pi-{number}" for number in range(8))
IMPORTED = 32
HARVESTED = 24
LABELLED = 20
REST_S = 0.2
SEEN_BEFORE = 1000
"""From this number on a photo has a picture that was seen before, and is not harvested."""


class Cameras:
    """Devices that send photos, in a thread: each photo after the answer to the one before."""

    def __init__(self, address: Broker) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cameras")
        self._seen = Observer(address)
        self._watching = self._seen.watching()
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self.call(self._watching.__aenter__())
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self.call(self._watching.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the thread and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * DEADLINE_S)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        self.call(eventually(condition))

    def send(self, count: int) -> None:
        """Send photos that differ, and wait for their answers."""
        self.call(self._send(range(count)))

    def go_on(self) -> None:
        """Send photos that were seen before until the block ends."""
        asyncio.run_coroutine_threadsafe(self._go_on(), self._loop)

    async def _go_on(self) -> None:
        number = SEEN_BEFORE
        while not self._stop.is_set():
            await self._send([number])
            number += 1
            try:
                await asyncio.wait_for(self._stop.wait(), REST_S)
            except TimeoutError:
                continue

    async def _send(self, numbers: Any) -> None:
        for number in numbers:
            device = DEVICES[number % len(DEVICES)]
            picture = number % len(DEVICES) if number >= SEEN_BEFORE else number
            await self._seen.send(enveloped(number, photo(picture, colour_of(number)), device), device)
            answer = await self._seen.answer(photo_id(number), device)
            assert answer.status == "ok", answer


def colour_of(number: int) -> str:
    """Return what a photo shows."""
    return COLOURS[number % len(COLOURS)]


@pytest.fixture
def address(tmp_path, mosquitto) -> Iterator[Broker]:
    """A broker."""
    broker = BrokerProcess(tmp_path / "broker", program=mosquitto)
    broker.start()
    yield Broker(port=broker.port)
    broker.stop()


@pytest.fixture
def console(tmp_path, address, monkeypatch) -> Iterator[str]:
    """Run model server, edge, collector and console as processes; return the address to open."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    for colour in COLOURS:
        (tmp_path / "train" / colour).mkdir(parents=True)
    for number in range(2000, 2000 + IMPORTED):
        folder = tmp_path / "train" / colour_of(number)
        (folder / f"{number}.jpg").write_bytes(photo(number, colour_of(number)))
    assert main(["cloud", "import", str(tmp_path / "train"), "--dataset", str(tmp_path / "dataset")]) == 0
    server = ModelServer(tmp_path / "serving", "pets")
    rules = HarvestRules(auto=False, uncertain_above=0, hard_novelty=0, audit_share=0)
    edge = edge_config(address, server.address, tmp_path, models_dir=str(server.base), harvest=rules)
    broker, places = ("--broker", f"127.0.0.1:{address.port}"), places_in(tmp_path)
    commands = [
        Command(tmp_path, "edge", "--config", str(toml(edge, tmp_path / "edge.toml"))),
        Command(tmp_path, "cloud", "collect", places["dataset"], *broker),
        Command(
            tmp_path, "console", places["dataset"], places["models"], places["cache"], *broker,
            "--listen", "127.0.0.1:0", "--state-dir", str(tmp_path / "console"),
        ),
    ]  # fmt: skip
    with ExitStack() as ending:
        ending.callback(server.kill)
        server.launch()
        for command in commands:
            ending.callback(command.kill)
            command.start()
        train(tmp_path)
        words = [str(tmp_path / "models/1.tar"), "--wait", "120", *broker]
        assert run(tmp_path, "cloud", "release", *words) == 0, commands[0].log[-2000:]
        yield (tmp_path / "console/address").read_text("utf-8").strip()
        assert commands[2].stop() == 0


def places_in(folder: Path) -> dict[str, str]:
    """Return the options for dataset, models and embedding cache."""
    names = {"dataset": "dataset", "models": "models", "cache": "features"}
    return {name: f"--{name}={folder / where}" for name, where in names.items()}


def run(folder: Path, *words: str) -> int:
    """Run a command to its end and return its exit code."""
    command = Command(folder, *words)
    command.start()
    try:
        return command.wait()
    finally:
        command.kill()  # if it has not ended in time


def train(folder: Path) -> None:
    """Train the next version with the miniature backbone, in this process, which has loaded TensorFlow."""
    places = places_in(folder)
    words = [places["dataset"], f"--out={folder / 'models'}", places["cache"]]
    assert main(["cloud", "train", *words, "--backbone", tiny.NAME, "--no-tflite"]) == 0


def begin_rollout(folder: Path, address: Broker) -> Command:
    """Start a rollout of version 2 that stays in its canary stage, however slow this machine is."""
    registry = Registry(folder / "models")
    options = RolloutOptions(
        shadow_photos=2, canary_shares=(0.5,), canary_photos=10**6, stage_s=0, disagreement=1
    )
    rollout = new_rollout(options, registry.bundle(2), registry.bundle(1), now_ms())
    rules = structs.replace(rollout.rules, p95_slack_ms=10**6)
    registry.rollout_file(2).write(structs.replace(rollout, rules=rules))
    words = [str(registry.bundle_path(2)), "--broker", f"127.0.0.1:{address.port}", "--force"]
    command = Command(folder, "cloud", "rollout", *words, places_in(folder)["dataset"])
    command.start()
    return command


def labels_in_curve(page: Any) -> int:
    """Return how many labels the learning curve of the page Progress has."""
    said = expect(page.locator("#figures"))
    said.to_contain_text(re.compile(r"With \d+ labels"))
    return int(re.search(r"With (\d+) labels", page.locator("#figures").text_content())[1])


def test_a_person_labels_sees_it_learn_and_sends_a_version_back(browser, console, address, tmp_path):
    """Keys become labels, the curve moves, and pages left open follow version 2 in and out again."""
    store = Store.open(tmp_path / "dataset")
    context = browser.new_context(base_url=console.partition("/?")[0], viewport=DESKTOP, locale="en-GB")
    with ExitStack() as ending:
        cameras = ending.enter_context(Cameras(address))
        review, progress, now, rollout = (ending.enter_context(watched(context.new_page())) for _ in range(4))
        review.goto(console)
        progress.goto("/progress")
        before = labels_in_curve(progress)
        now.goto("/")
        rollout.goto("/rollout")

        cameras.send(HARVESTED)
        expect(now.locator(".card.answer")).to_have_count(len(DEVICES))
        cameras.until(lambda: store.count("lane = 'hard'") == HARVESTED)
        review.goto("/review")
        for number in range(LABELLED):
            shown = review.locator("[data-photo]:visible").first.get_attribute("data-photo")
            review.keyboard.press(colour_of(int(shown, 16))[0])
            expect(review.locator("[data-given]")).to_have_text(str(number + 1))
        cameras.until(lambda: store.count("lane = 'hard' AND human_label IS NOT NULL") == LABELLED)
        expect(progress.locator("#figures")).not_to_contain_text(f"With {before} labels")
        assert labels_in_curve(progress) > before

        train(tmp_path)
        learned = Registry(tmp_path / "models").card(2).examples
        assert sum(sources["human"] for sources in learned.values()) == IMPORTED + LABELLED
        controller = begin_rollout(tmp_path, address)
        ending.callback(controller.kill)
        cameras.go_on()
        expect(rollout.locator("#view")).to_contain_text("Version 2 over version 1")
        expect(rollout.locator(".stage.current")).to_have_text("canary 50%")
        expect(now.locator(".card.answer", has_text="version 2").first).to_be_visible()
        expect(now.locator(".card.answer", has_text="version 1").first).to_be_visible()

        rollout.get_by_role("link", name="Go back").click()
        rollout.get_by_label("Why").fill("the barn is too dark")
        rollout.get_by_role("button", name="Go back").click()
        expect(rollout.locator(".chip.state-returned")).to_be_visible()
        expect(now.locator(".card.answer", has_text="version 2")).to_have_count(0)
        assert controller.wait() == 1
        order = RolloutFile(tmp_path / "models/rollout-2.json").read().orders[-1]
        assert (order.action, order.reason) == ("roll-back", "the barn is too dark")
    context.close()
