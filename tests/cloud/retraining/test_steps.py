"""Rules of cloud/retraining/steps.py, step_process.py and worker.py: what a round runs, and how."""

import asyncio
import sys

import msgspec
import pytest
from msgspec import structs

from bus.config import Broker, ClientConfig, load
from cloud.dataset.store import Store
from cloud.registry.registry import Registry
from cloud.retraining.config import TrainerConfig
from cloud.retraining.loop import WORKER
from cloud.retraining.step_process import run_in_process
from cloud.retraining.steps import (
    ReleaseStep,
    Step,
    TeachStep,
    TuneStep,
    release_step,
    training_steps,
    tuning_step,
)
from cloud.rollout.options import RolloutOptions
from cloud.training.pipeline import TrainingOptions
from schemas.errors import PermanentError
from schemas.topics import RELEASE
from tests.cloud.bundles import bundle, card
from tests.conftest import DEADLINE_S
from tests.nodes import Observer
from tests.sites import broker_of, free_ports, provision

RELEASED = RolloutOptions(groups=(("n",), ("m", "n")), signing_key="k", force=True)
CONFIG = TrainerConfig(
    dataset="d",
    models="m",
    cache="c",
    backbone="xception",
    also=("xception-small",),
    teachers=("a", "b"),
    tflite=True,
    broker=Broker(host="h", username="u"),
    release=RELEASED,
)


async def run(step: Step, folder) -> str:
    """Run a step in the real worker and return its output."""
    with (folder / "lock").open("w") as lock:
        await run_in_process(WORKER, step, inherit=lock.fileno(), output=folder / "log", timeout_s=DEADLINE_S)
    return (folder / "log").read_text()


def test_the_configuration_reaches_the_steps():
    """Places, backbones, connection and rollout options; each node is tuned once."""
    teach, train = training_steps(CONFIG)
    assert teach == TeachStep(dataset="d", cache="c", backbones=("a", "b"))
    assert train == TrainingOptions(
        dataset="d", models="m", cache="c", backbone="xception", also=("xception-small",), tflite=True
    )
    assert release_step(CONFIG, card(2)) == ReleaseStep(
        dataset="d", models="m", version=2, options=RELEASED, broker=CONFIG.broker
    )
    assert tuning_step(CONFIG) == TuneStep(dataset="d", models="m", nodes=("n", "m"), broker=CONFIG.broker)
    assert {step.ray for step in training_steps(structs.replace(CONFIG, ray="r:6379"))} == {"r:6379"}
    elsewhere = structs.replace(CONFIG, release_broker=Broker(host="r"))
    assert release_step(elsewhere, card(2)).broker == tuning_step(elsewhere).broker == Broker(host="r")


def test_without_teachers_and_release_there_is_only_the_training():
    """No teacher labels samples, and versions are released with the command."""
    config = structs.replace(CONFIG, teachers=(), release=None)
    assert [type(step) for step in training_steps(config)] == [TrainingOptions]
    assert release_step(config, card(2)) is tuning_step(config) is None


def test_each_step_survives_its_way_to_the_worker():
    """The worker decodes what the loop encoded, by the tag of its type."""
    steps = [*training_steps(CONFIG), release_step(CONFIG, card(2)), tuning_step(CONFIG)]
    for step in steps:
        assert msgspec.json.decode(msgspec.json.encode(step), type=Step) == step


@pytest.mark.parametrize("step", [*training_steps(CONFIG), tuning_step(CONFIG)])
async def test_a_step_fails_with_one_sentence(step, tmp_path):
    """The last line of the worker's output is the reason of the failed step."""
    step = structs.replace(step, dataset=str(tmp_path / "none"))
    with pytest.raises(PermanentError, match=r"failed with exit code 1: no dataset at .*none; "):
        await run(step, tmp_path)


async def test_a_first_version_is_released_to_all_nodes_at_once(address, tmp_path):
    """It has no champion to roll back to, and so no stages."""
    bundle(tmp_path, 1)
    options = RolloutOptions(groups=(("edge-1",), ("edge-2",)), model="birds")
    step = ReleaseStep(
        dataset=str(tmp_path / "none"), models=str(tmp_path), version=1, options=options, broker=address
    )
    observer = Observer(address)
    releases = observer.bus.subscribe(RELEASE)
    async with observer.watching(), asyncio.timeout(DEADLINE_S):
        assert "version.released" in await run(step, tmp_path)
        received = [(await releases.queue.get()).message() for _ in range(2)]
    assert {(one.node, one.model, one.version, one.stage) for one in received} == {
        ("edge-1", "birds", 1, "all"),
        ("edge-2", "birds", 1, "all"),
    }
    assert Registry(tmp_path).newest_rollout() is None


async def test_policies_are_tuned(address, tmp_path):
    """With nothing to change, the step ends without an error and without a new policy."""
    Store.open(tmp_path / "dataset")
    Registry(tmp_path / "models").write_card(card(1))
    step = TuneStep(
        dataset=str(tmp_path / "dataset"), models=str(tmp_path / "models"), nodes=("edge-1",), broker=address
    )
    assert '"reasons": []' in await run(step, tmp_path)


async def test_a_provisioned_trainer_releases_and_tunes(tmp_path, mosquitto):
    """With the configuration that `provision` writes: by the rollout's certificate, as its own may not."""
    port = free_ports()
    provision(tmp_path / "site", "--cloud", f"127.0.0.1:{port}", "--edge", "edge-1")
    cloud = tmp_path / "site/cloud"
    config = structs.replace(
        load(cloud / "trainer.toml", TrainerConfig),
        dataset=str(tmp_path / "dataset"),
        models=str(tmp_path),
        release=RolloutOptions(model="birds"),
    )
    bundle(tmp_path, 1)
    Store.open(tmp_path / "dataset")
    Registry(tmp_path).write_card(card(1))
    observer = Observer(load(tmp_path / "site/operator/cloud.toml", ClientConfig).broker)
    releases = observer.bus.subscribe(RELEASE)
    with broker_of(cloud, port, mosquitto):
        async with observer.watching(), asyncio.timeout(DEADLINE_S):
            await run(release_step(config, card(1)), tmp_path)
            assert (await releases.queue.get()).message().version == 1
        assert '"reasons": []' in await run(tuning_step(config), tmp_path)


async def test_a_worker_that_does_not_read_its_step_is_no_error(tmp_path):
    """The exit code alone decides."""
    with (tmp_path / "lock").open("w") as lock:
        await run_in_process(
            (sys.executable, "-c", ""),
            TeachStep(dataset="d" * 100_000, cache="c", backbones=()),
            inherit=lock.fileno(),
            output=tmp_path / "log",
            timeout_s=DEADLINE_S,
        )
