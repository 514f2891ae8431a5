"""A provisioned site with real processes: from the camera to the dataset and back."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from cloud.dataset.store import Store
from cloud.registry.registry import Registry
from schemas.messages import Result
from tests.cli.conftest import gleaner
from tests.cloud.bundles import card
from tests.conftest import DEADLINE_S, ROOT, eventually
from tests.nodes import Command, photo
from tests.serving import ModelServer, pack, place, saved_models
from tests.sites import broker_of, free_ports, provision

PHOTOS = 6

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Running:
    """Two brokers with TLS and a bridge, an edge, a collector, and the results of a device's photos."""

    site: Path
    folder: Path
    answers: list[Result]

    @property
    def store(self) -> Store:
        return Store.open(self.folder / "dataset")

    def config(self, path: str) -> tuple[str, str]:
        return "--config", str(self.site / path)


@pytest.fixture(scope="module")
def running(tmp_path_factory, mosquitto) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("running")
    site, cloud, node = folder / "site", free_ports(), free_ports()
    words = ("--edge", "edge-1", "--edge-host", f"127.0.0.1:{node}", "--devices", "pi-1,pi-2")
    provision(site, "--cloud", f"127.0.0.1:{cloud}", *words)
    server = ModelServer(folder / "models", "pets")
    place("straight", server.base / "pets", 1)
    running = Running(site, folder, [])
    edge_words = ("--serving", server.address, "--models-dir", str(server.base), "--state-dir", str(folder))
    edge = Command(folder, "edge", *running.config("edges/edge-1/edge.toml"), *edge_words)
    dataset = ("--dataset", str(folder / "dataset"))
    collector = Command(folder, "cloud", "collect", *running.config("cloud/collector.toml"), *dataset)
    with (
        broker_of(site / "cloud", cloud, mosquitto),
        broker_of(site / "edges/edge-1", node, mosquitto),
        contextlib.ExitStack() as ending,
    ):
        for part in (server, collector, edge):
            ending.callback(part.kill)
            part.start()
        running.answers.extend(answers_to_photos(running))
        yield running


def answers_to_photos(running: Running) -> Iterator[Result]:
    """Run a device that takes its photos, and yield their final results."""
    camera = running.folder / "photos"
    camera.mkdir()
    for number in range(PHOTOS):
        (camera / f"{number}.jpg").write_bytes(photo(number, "red"))
    config = running.config("devices/edge-1.pi-1/device.toml")
    words = ("--camera", f"folder:{camera}", "--interval", "0.05", "--state-dir", str(running.folder))
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "device", *config, *words],
        cwd=ROOT,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    for line in done.stdout.splitlines():
        answer = msgspec.json.decode(line, type=Result)
        if answer.status != "deferred":
            yield answer


async def test_g5_a_provisioned_site_works(running):
    """G5: with the provisioned files photos are answered, and their samples reach the dataset."""
    assert [answer.label for answer in running.answers] == ["cat"] * PHOTOS
    await eventually(lambda: running.store.count() >= PHOTOS)
    rows = running.store.find([answer.photo_id for answer in running.answers], ["node", "device"])
    assert [(row["node"], row["device"]) for row in rows.values()] == [("edge-1", "pi-1")] * PHOTOS


async def test_the_operators_tools_work_on_a_secured_broker(running):
    """`gleaner doctor` and `gleaner send` succeed with the operator's certificate."""
    config = running.config("operator/edge-1.toml")
    async with asyncio.timeout(DEADLINE_S):
        while (done := await gleaner("doctor", *config, "--timeout", "20")).code:
            assert done.out.count("FAIL") == 1  # until the edge has reported the version that it serves
            assert "FAIL model" in done.out
    (running.folder / "cat.jpg").write_bytes(photo(100, "red"))
    sent = await gleaner("send", running.folder / "cat.jpg", *config)
    assert (sent.code, "cat" in sent.out) == (0, True), sent.err


async def test_a_persons_label_crosses_to_the_cloud(running):
    """`gleaner cloud review --label` stores a label with the operator's certificate."""
    await eventually(lambda: running.store.count() >= PHOTOS)
    photo_id = running.answers[0].photo_id
    words = ("--dataset", running.folder / "dataset", "--label", photo_id, "dog")
    done = await gleaner("cloud", "review", *words, *running.config("operator/cloud.toml"))
    assert done.code == 0, done.err
    await eventually(
        lambda: running.store.find([photo_id], ["human_label"])[photo_id]["human_label"] == "dog"
    )


async def test_g5_a_command_without_permission_fails(running):
    """G5: a label or a release from an identity without permission ends with an error."""
    await eventually(lambda: running.store.count() >= PHOTOS)
    photo_id = running.answers[0].photo_id
    words = ("--dataset", running.folder / "dataset", "--label", photo_id, "dog")
    label = gleaner("cloud", "review", *words, *running.config("cloud/rollout.toml"))
    release = gleaner("cloud", "release", bundle(running, 3), *running.config("operator/cloud.toml"))
    allowed = ("operator", "rollout")
    for done, kind in zip(await asyncio.gather(label, release), allowed, strict=True):
        assert done.code == 1
        assert "this client may not write gleaner/v1/" in done.sentence
        assert f"use the certificate of {kind}, see 'gleaner provision'" in done.sentence


async def test_g6_a_release_needs_the_signing_key(running):
    """G6: an unsigned release is refused with its reason, a signed one is served."""
    words = (bundle(running, 2), "--wait", f"{DEADLINE_S:g}", *running.config("cloud/rollout.toml"))
    unsigned = await gleaner("cloud", "release", *words)
    assert unsigned.code == 1
    assert "the release is not signed" in unsigned.sentence
    signed = await gleaner(
        "cloud", "release", *words, "--signing-key", running.site / "authority/signing.key"
    )
    assert (signed.code, "edge-1 serves version 2" in signed.out) == (0, True), signed.err


def bundle(running: Running, version: int) -> Path:
    """Pack a model with a model card."""
    model = running.folder / f"bundle-{version}"
    shutil.copytree(saved_models() / "swapped", model)
    Registry(running.folder).write_card(card(version), model)
    return pack(model, running.folder / f"{version}.tar")


async def test_a_node_that_is_gone_is_retired_by_the_rollouts_certificate(running):
    """With certificates one identity may clear all that the broker retains: statuses, policy and release."""
    config, key = running.config("cloud/rollout.toml"), running.site / "authority/signing.key"
    words = ("--nodes", "edge-9", "--any-node", "--signing-key", key)
    prepared = await gleaner("cloud", "release", bundle(running, 9), *words, *config)
    assert prepared.code == 0, prepared.err
    assert "nothing has reported as edge-9" in (await gleaner("cloud", "retire", "edge-9", *config)).sentence
    for target in ("edge-9", "edge-1.edge"):
        retired = await gleaner("cloud", "retire", target, "--force", *config)
        assert retired.code == 0, retired.err  # it succeeds only if the broker has cleared them
