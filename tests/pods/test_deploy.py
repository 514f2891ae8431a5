"""The cloud deploys pods to the edge: to a new node, a new model, a new image, and back."""

import asyncio
import time
from functools import partial

import pytest

from tests.pods import images, rollout, runtime
from tests.pods.conftest import FIRST, LATER, Load, Note
from tests.pods.kubectl import until
from tests.pods.lab import PodLab
from tests.pods.models import bundle
from tests.pods.overlay import TAG

pytestmark = [pytest.mark.pods, pytest.mark.slow, pytest.mark.timeout(1800)]

NEXT_TAG = "2"


async def test_a_pod_answers_photos_and_its_samples_reach_the_dataset(load: Load) -> None:
    """From the camera through the pods of edge and cloud to the dataset nothing is lost."""
    async with load("one node") as cameras:
        await cameras.answers(20)


async def test_a_node_that_joins_later_gets_its_pods(lab: PodLab, load: Load, note: Note) -> None:
    """DaemonSets that were applied before run on a new node, and the gateway repairs its Rules."""
    began = time.monotonic()
    await lab.join(LATER)
    note("second node: joined after", f"{time.monotonic() - began:.0f} s")
    await rollout.harvest_all(lab, (LATER,))
    await rollout.release(lab, 1, (LATER,))
    await lab.ready()
    note("second node: all pods ready after", f"{time.monotonic() - began:.0f} s")
    async with load("two nodes") as cameras:
        await cameras.answers(20)


async def test_a_new_model_is_served_without_a_failed_request(lab: PodLab, load: Load, note: Note) -> None:
    """A release under load: every photo is answered, by the old version or the new one."""
    async with load("model release") as cameras:
        began = time.monotonic()
        said = await rollout.release(lab, 2, tuple(lab.joined))
        note("model release: served by all nodes after", f"{time.monotonic() - began:.1f} s")
        assert all(f"{node} serves version 2" in said for node in lab.joined)
        await cameras.answers(8)


async def test_a_new_image_rolls_over_under_load_and_back(lab: PodLab, load: Load, note: Note) -> None:
    """A changed tag in the overlay replaces the pods, `kubectl rollout undo` brings the earlier ones back."""
    for node in lab.joined:
        machine = lab.edges[node].machine
        runtime.tag(machine, images.image_name("gleaner-edge"), images.image_name("gleaner-edge", NEXT_TAG))
    async with load("image release and undo") as cameras:
        for step, tag in (("image release", NEXT_TAG), ("rollout undo", TAG)):
            began = time.monotonic()
            if tag == NEXT_TAG:
                await lab.deploy(tags={"gleaner-edge": tag})
            else:
                await lab.kubectl.run("rollout", "undo", "daemonset/edge")
            await until(partial(_all_run, lab, tag), f"{step} on all nodes")
            note(f"{step}: all nodes run it after", f"{time.monotonic() - began:.0f} s")
            note(f"{step}: next results at all nodes after", f"{await cameras.answers(2):.1f} s")


async def test_the_operator_may_not_release(lab: PodLab, note: Note) -> None:
    """Only the key `cloud.rollout` may: another one is refused at once, with an error message."""
    await asyncio.to_thread(rollout.publish_bundle, lab, 3)
    began = time.monotonic()
    said = await rollout.run(
        lab, "operator", "release", str(bundle(3)), "--force", "--nodes", FIRST, "--url",
        "http://10.230.0.1:30880/3.tar", check=False,
    )  # fmt: skip
    note("release with the operator's key: refused after", f"{time.monotonic() - began:.1f} s")
    assert f"this client may not write gleaner/v1/release/{FIRST}; use the certificate of rollout" in said


async def _all_run(lab: PodLab, tag: str) -> bool:
    wanted = images.image_name("gleaner-edge", tag)
    pods = [pod for pod in await lab.pods() if pod.app == "edge"]
    return len(pods) == len(lab.joined) and all(pod.ready and wanted in pod.images for pod in pods)
