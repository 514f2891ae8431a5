"""deploy/kubeedge/README.md: its commands lead from bare machines to results, with `overlays/fleet`."""

import asyncio
import time
from collections.abc import Iterator
from http import HTTPStatus
from types import SimpleNamespace

import pytest

from cloud.dataset.store import Store
from schemas.errors import GleanerError
from tests.conftest import eventually
from tests.console.access.test_entrance import SecureClient
from tests.faults import configs
from tests.nodes import toml
from tests.pods import addresses as at
from tests.pods import images, requirements
from tests.pods.conftest import Note
from tests.pods.lab import PodLab
from tests.pods.programs import locate
from tests.pods.traces import traces
from tests.pods.walk import fleet
from tests.pods.walk.steps import steps
from tests.pods.walk.walker import Walker

pytestmark = [pytest.mark.pods, pytest.mark.slow, pytest.mark.timeout(3600)]

CAMERA, CONSOLE = 10, 11
STORED_S = 300.0
RELEASE_POLICY = """
kubectl port-forward svc/broker 8884 &
gleaner cloud policy --any-node --nodes edge-1,edge-2 --set rules.toml --broker localhost:8884 \\
    --ca site/cloud/ca.pem --cert site/cloud/rollout.pem --key site/cloud/rollout.key
kill %1
"""


@pytest.fixture(scope="module")
def walked(note: Note, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PodLab, Walker, str]]:
    """The laboratory at the end of the path, and what the camera wrote; after the tests nothing is left."""
    if reason := requirements.missing():
        pytest.skip(reason)
    if missing := [*locate().missing(), *images.missing()]:
        pytest.skip(f"{', '.join(missing)} not built: run `make kubeedge-pods`, which needs Go")
    began = time.monotonic()
    lab = PodLab(locate(), told=lambda step: note(step, f"{time.monotonic() - began:.0f} s"))
    lab.stop()
    before = traces()
    walker = Walker(lab, tmp_path_factory.mktemp("walk"))
    try:
        yield lab, walker, asyncio.run(_walk(lab, walker))
    finally:
        lab.stop()
    left = {kind: found - before[kind] for kind, found in traces().items()}
    assert not any(left.values()), left


async def _walk(lab: PodLab, walker: Walker) -> str:
    await lab.start(bare=True)
    return await fleet.walk(lab, walker)


def test_the_first_camera_gets_its_results(walked: tuple[PodLab, Walker, str]) -> None:
    """The last step prints a line for each photo: the label of its folder."""
    assert fleet.labels(walked[2]) == {"cat": fleet.PHOTOS // 2, "dog": fleet.PHOTOS // 2}


async def test_samples_of_both_nodes_reach_the_bucket(
    walked: tuple[PodLab, Walker, str], note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a policy that harvests all, each photo of a camera at either node is stored once, on S3."""
    _, walker, _ = walked
    toml(configs.RULES, walker.folder / "rules.toml")
    await walker.run(RELEASE_POLICY)
    camera = next(step.script for step in steps() if step.number == CAMERA)
    for node in ("edge-1", "edge-2"):
        said = await walker.run(
            camera.replace("edge-1", node).replace("--state-dir camera", f"--state-dir at-{node}")
        )
        assert fleet.labels(said) == {"cat": fleet.PHOTOS // 2, "dog": fleet.PHOTOS // 2}
    for line in (walker.folder / "s3.env").read_text().splitlines():
        monkeypatch.setenv(*line.split("=", 1))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{at.CLOUD_LAN}:{fleet.S3_PORT}")
    began = time.monotonic()
    await eventually(lambda: len(stored("edge-1")) >= fleet.PHOTOS, within_s=STORED_S)
    await eventually(lambda: len(stored("edge-2")) >= fleet.PHOTOS, within_s=STORED_S)
    note("fleet: samples of both nodes on S3 after", f"{time.monotonic() - began:.0f} s")
    for node in ("edge-1", "edge-2"):
        assert len(stored(node)) == len(set(stored(node)))


async def test_cameras_are_devices_of_the_cluster(walked: tuple[PodLab, Walker, str]) -> None:
    """`kubectl get devicestatuses` has the state of the cameras of the overlay."""
    lab, _, _ = walked

    async def reported() -> set[str]:
        statuses = await asyncio.to_thread(lab.kubectl.get, "devicestatuses", "-n", "gleaner")
        return {one["metadata"]["name"] for one in statuses}

    for _ in range(120):
        if {"edge-1.pi-1", "edge-2.pi-1"} <= await reported():
            return
        await asyncio.sleep(1)
    raise AssertionError(await reported())


async def test_the_console_is_a_pod_that_knows_its_people(walked: tuple[PodLab, Walker, str]) -> None:
    """Through `kubectl port-forward` the account of step 5 logs in over HTTPS."""
    _, walker, _ = walked
    forward = next(step.script for step in steps() if step.number == CONSOLE)
    certificate = walker.folder / "site/cloud/https.pem"

    def enters() -> bool:
        browser = SecureClient(SimpleNamespace(url="https://localhost:8765"), certificate)
        try:
            return browser.log_in("ada", fleet.PASSWORD) == HTTPStatus.SEE_OTHER
        except OSError:
            return False  # the port is not forwarded yet

    async with walker.following(forward):
        await eventually(enters)


def stored(node: str) -> list[str]:
    """Return the ids of the samples of a node on S3; none while the table cannot be read."""
    try:
        store = Store.open(f"s3://{fleet.BUCKET}/dataset.lance", create=False)
        return [str(row["photo_id"]) for row in store.scan(["photo_id"], where=f"node = '{node}'")]
    except GleanerError:
        return []
