"""A new class in a running system, from its first photos to answers with its name; all parts are real."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus.config import Broker
from cli.main import main
from cloud.dataset.store import HAS_IMAGE, Store
from cloud.registry.registry import Registry
from schemas.messages import Feedback
from schemas.policy_rules import HarvestRules
from schemas.topics import FEEDBACK
from tests.cloud import tiny
from tests.conftest import eventually
from tests.nodes import NODE, Command, Observer, edge_config, edge_process, enveloped, photo, photo_id
from tests.serving import ModelServer

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*"),
]

KNOWN = ("blue", "green", "grey", "red")
NEW, SLIP = "yellow", "yelow"
EXAMPLES = 5
"""Photos of each class for version 1."""
LATER = 15
"""The same for version 2: with more labels, five classes are calibrated no worse than four were."""
GOLD = 38  # of each class: the gate wants 150 photos


@asynccontextmanager
async def system(address: Broker, folder: Path) -> AsyncIterator[Observer]:
    """Run model server, edge and collector as processes, with the lane auto off: no teacher confirms it."""
    server = ModelServer(folder / "serving", "pets")
    rules = HarvestRules(auto=False, audit_share=0, near_duplicate_s=0)
    config = edge_config(address, server.address, folder, models_dir=str(server.base), harvest=rules)
    words = ("--dataset", str(folder / "dataset"), "--broker", f"127.0.0.1:{address.port}")
    collector = Command(folder, "cloud", "collect", *words)
    with contextlib.ExitStack() as ending:
        ending.callback(server.kill)
        ending.callback(collector.kill)
        server.launch()  # it listens when it has a version
        collector.start()
        ending.enter_context(edge_process(config, folder)).start()
        async with Observer(address).watching() as seen:
            yield seen


def import_photos(folder: Path, split: str, first: int, count: int) -> None:
    """Import photos of all known classes with the command."""
    source = folder / f"{split}-{first}"
    for colour in KNOWN:
        (source / colour).mkdir(parents=True)
        for seed in range(first, first + count):
            (source / colour / f"{seed}.jpg").write_bytes(photo(seed, colour))
    assert main(["cloud", "import", str(source), "--split", split, "--dataset", str(folder / "dataset")]) == 0


async def train(folder: Path) -> None:
    """Train the next version with the command."""
    places = (f"--{name}={folder / where}" for name, where in (("dataset", "dataset"), ("out", "models")))
    words = ["cloud", "train", *places, f"--cache={folder / 'features'}", "--no-tflite"]
    words += ["--backbone", tiny.NAME]  # colours are easy to classify
    assert await asyncio.to_thread(main, words) == 0


async def release(folder: Path, address: Broker, version: int) -> None:
    """Release a version and wait until the edge serves it."""
    words = ("--wait", "120", "--broker", f"127.0.0.1:{address.port}")
    command = Command(
        folder, "cloud", "release", str(Registry(folder / "models").bundle_path(version)), *words
    )
    command.start()
    assert await asyncio.to_thread(command.wait) == 0


async def answers(seen: Observer, shown: dict[int, str]) -> dict[int, tuple[str | None, int | None]]:
    """Publish photos by number and colour, and return label and version of each answer."""
    for number, colour in shown.items():
        await seen.send(enveloped(number, photo(number, colour)))
    said = {number: await seen.answer(photo_id(number)) for number in shown}
    return {number: (answer.label, answer.model_version) for number, answer in said.items()}


async def test_a_class_is_added_to_a_running_system(address: Broker, tmp_path: Path) -> None:
    """Labels add a fifth class, which the next version answers; a single mislabelled photo adds none."""
    for split, first, count in (("train", 1000, EXAMPLES), ("gold", 2000, GOLD)):
        import_photos(tmp_path, split, first, count)
    store = Store.open(tmp_path / "dataset")
    async with system(address, tmp_path) as seen:
        await train(tmp_path)
        await release(tmp_path, address, 1)
        known = dict(enumerate(KNOWN))
        assert await answers(seen, known) == {number: (colour, 1) for number, colour in known.items()}

        new = dict.fromkeys(range(10, 11 + LATER), NEW)
        assert {label for label, _ in (await answers(seen, new)).values()} <= {*KNOWN}
        for number in new:
            label = SLIP if number == max(new) else NEW
            said = Feedback(
                photo_id=photo_id(number), node=NODE, device="pi-1", label=label, by="ann", at_ms=1
            )
            await seen.bus.publish(FEEDBACK, said, node=NODE, device="pi-1")
        labelled = f"{HAS_IMAGE} AND human_label IN ('{NEW}', '{SLIP}') AND lane IN ('hard', 'feedback')"
        await eventually(lambda: store.count(labelled) == len(new))

        import_photos(tmp_path, "train", 1000 + EXAMPLES, LATER - EXAMPLES)
        await train(tmp_path)
        card = Registry(tmp_path / "models").card(2)
        assert card.classes == [*KNOWN, NEW]
        assert card.verdict is not None
        assert card.verdict.decision == "promote", card.verdict.reasons
        await release(tmp_path, address, 2)
        asked = dict(enumerate((*KNOWN, NEW), 50))
        assert await answers(seen, asked) == {number: (colour, 2) for number, colour in asked.items()}
