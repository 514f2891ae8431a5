"""A foreign model is adopted, released and served by commands alone, and answers a photo."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.broker.process import free_port
from cloud.dataset.store import Row, Store
from schemas.codec import content_id
from tests.cli.conftest import gleaner
from tests.conftest import DEADLINE_S
from tests.nodes import NODE, Command, Observer, edge_config, edge_running, enveloped, photo, photo_id
from tests.serving import CLASSES, START_S, saved_models

pytestmark = pytest.mark.slow

COLOURS = {"red": "cat", "blue": "dog"}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Ten labelled and ten gold photos of each class."""
    images = [(photo(number, colour), label) for number in range(20) for colour, label in COLOURS.items()]
    rows = [
        Row(
            photo_id=content_id(image),
            image=image,
            width=90,
            height=80,
            received_at_ms=1,
            human_label=label,
            human_by="bob",
            human_at_ms=1,
            split="gold" if position >= len(images) // 2 else "train",
            origin="import",
        )
        for position, (image, label) in enumerate(images)
    ]
    Store.open(tmp_path / "dataset.lance").upsert(rows)
    return tmp_path / "dataset.lance"


@pytest.fixture
def light_server(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """The model server without TensorFlow: its base folder and port."""
    base, port = tmp_path / "serving", free_port()
    (base / "pets").mkdir(parents=True)
    words = (f"--model_base_path={base / 'pets'}", f"--port={port}", "--file_system_poll_wait_seconds=0.05")
    server = Command(tmp_path, "modelserver", "--runtime=litert", "--model_name=pets", *words)
    server.start()
    yield base, port
    server.kill()


async def test_an_adopted_model_answers_photos(address, dataset, light_server, tmp_path):
    """SavedModel in, version 1 with its card and bundle out; released, it classifies as it did before."""
    base, port = light_server
    words = ("--classes", ",".join(CLASSES), "--preprocessing", "unit", "--dataset", dataset)
    places = ("--out", tmp_path / "models", "--cache", tmp_path / "cache")
    done = await gleaner("cloud", "adopt", saved_models() / "pixels", *words, *places)
    assert done.code == 0, done.err
    assert "100.0% on gold" in done.out
    assert "LiteRT float32: in the bundle" in done.out
    config = edge_config(address, f"127.0.0.1:{port}", tmp_path, models_dir=str(base))
    async with Observer(address).watching() as seen, edge_running(config), asyncio.timeout(START_S):
        bundle = ("cloud", "release", tmp_path / "models/1.tar", "--nodes", NODE, "--any-node")
        released = await gleaner(
            *bundle, "--wait", f"{DEADLINE_S:g}", "--broker", f"{address.host}:{address.port}"
        )
        assert released.code == 0, released.err
        for number, (colour, label) in enumerate(COLOURS.items()):
            await seen.send(enveloped(number, photo(100 + number, colour)))
            answer = await seen.answer(photo_id(number))
            assert (answer.label, answer.model_version, set(answer.scores)) == (label, 1, set(CLASSES))
