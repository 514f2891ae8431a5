"""The trainer runs as a Job in the cloud, with its dataset on a volume; its version is released to nodes."""

import asyncio
import json
import time

import pytest

from cloud.registry.registry import Registry
from tests.nodes import photo
from tests.pods import rollout, storage
from tests.pods.conftest import Load, Note
from tests.pods.kubectl import Thing, until
from tests.pods.lab import PodLab
from tests.pods.site import USER

pytestmark = [pytest.mark.pods, pytest.mark.slow, pytest.mark.timeout(2400)]

PHOTOS = 48
TRAINED_S = 1800.0


async def test_a_version_trained_by_the_cronjob_is_served(lab: PodLab, load: Load, note: Note) -> None:
    """`kubectl create job --from=cronjob/trainer` trains on the volume; the bundle rolls out under load."""
    put_photos(lab)
    await run_job(
        lab, job("import", await template(lab), "import", "/store/photos", "--dataset=/store/dataset.lance")
    )
    registry = Registry(storage.store(lab.cloud.machine) / "models")
    version = registry.next_version()
    began = time.monotonic()
    await lab.kubectl.run("create", "job", "--from=cronjob/trainer", "now")
    await finished(lab, "now")
    note("trainer: Job complete after", f"{time.monotonic() - began:.0f} s")
    bundle = registry.bundle(version)
    note("trainer: bundle", f"version {version}, {bundle.size_bytes / 1e6:.1f} MB")
    async with load("release of a trained version") as cameras:
        began = time.monotonic()
        said = await rollout.release_bundle(lab, bundle.path, tuple(lab.joined))
        note("trainer: its version served by all nodes after", f"{time.monotonic() - began:.1f} s")
        assert all(f"{node} serves version {version}" in said for node in lab.joined)
        await cameras.answers(8)


def put_photos(lab: PodLab) -> None:
    """Put labelled photos into the volume: red ones are cats, blue ones dogs."""
    store = storage.store(lab.cloud.machine)
    for number in range(PHOTOS):
        colour, label = (("red", "cat"), ("blue", "dog"))[number % 2]
        path = store / f"photos/{label}/{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(10_000 + number, colour, (180, 160)))
    lab.cloud.machine.run("chown", "-R", f"{USER}:{USER}", f"{storage.STORE}/photos")


async def template(lab: PodLab) -> Thing:
    """Return the pod of the trainer's CronJob."""
    cronjob = json.loads(await lab.kubectl.run("get", "cronjob", "trainer", "-o", "json"))
    pod: Thing = cronjob["spec"]["jobTemplate"]["spec"]["template"]
    return pod


def job(name: str, pod: Thing, *words: str) -> Thing:
    """Return a Job that runs another command of `gleaner cloud` in the trainer's pod."""
    (container,) = pod["spec"]["containers"]
    container["args"] = ["cloud", *words]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "gleaner"},
        "spec": {"backoffLimit": 0, "template": pod},
    }


async def run_job(lab: PodLab, wanted: Thing) -> None:
    """Apply a Job and wait until it is complete."""
    await asyncio.to_thread(lab.kubectl.apply, wanted)
    await finished(lab, wanted["metadata"]["name"])


async def finished(lab: PodLab, name: str) -> None:
    """Wait until a Job is complete."""
    ended: list[str] = []

    async def ends() -> bool:
        path = "jsonpath={.status.conditions[?(@.status=='True')].type}"
        ended[:] = (await lab.kubectl.run("get", "job", name, "-o", path)).split()
        return bool({"Complete", "Failed"} & set(ended))

    def told() -> str:
        return lab.kubectl("describe", "pods", "-l", f"job-name={name}", check=False)[-1500:]

    await until(ends, f"the end of job {name}", within_s=TRAINED_S, told=told)
    assert "Complete" in ended, lab.kubectl("logs", f"job/{name}", "--tail=40", check=False)
