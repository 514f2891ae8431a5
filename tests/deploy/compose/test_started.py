"""The containers of `deploy/compose/compose.yaml`, started by the commands of docs/containers.md."""

import json
import os
import signal
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloud.dataset.store import Store
from schemas.errors import GleanerError
from tests.conftest import eventually
from tests.console.access.test_access import PASSWORD
from tests.console.access.test_entrance import SecureClient
from tests.deploy.compose import project
from tests.deploy.compose.project import Project
from tests.nodes import photo

pytestmark = [pytest.mark.compose, pytest.mark.timeout(3600)]

IMPORTED, TAKEN = 48, 12
TRAINED_S, STARTED_S, STORED_S = 1800.0, 300.0, 120.0
BROKERS = {"cloud-broker", "edge-broker"}
SERVICES = {*BROKERS, "modelserver", "edge", "collector", "trainer", "console"}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The started system; when it is stopped, nothing of it is left on this machine."""
    if reason := project.missing():
        pytest.skip(reason)
    before = project.traces()
    made = Project(tmp_path_factory.mktemp("compose"))
    setup, _, _ = project.blocks()
    prepared, started = setup.rsplit("docker compose up", 1)
    try:
        made.sh(prepared, typed=f"{PASSWORD}\n")
        # Each photo is harvested, so that the test knows which.
        edge = made.folder / "site/edges/edge-1/edge.toml"
        edge.write_text(edge.read_text() + "\n[harvest]\naudit_share = 1\n")
        put_photos(made.folder / "photos")
        made.sh(f"docker compose up{started}")
        yield made
    finally:
        made.sh("docker compose down --volumes")
    left = {kind: found - before[kind] for kind, found in project.traces().items()}
    assert not any(left.values()), left


def put_photos(folder: Path) -> None:
    """Put labelled photos into a folder: red ones are cats, blue ones dogs."""
    folder.mkdir()
    for number in range(IMPORTED):
        colour, label = (("red", "cat"), ("blue", "dog"))[number % 2]
        path = folder / label / f"{number:03d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(photo(number, colour, (180, 160)))


async def test_every_container_starts_and_its_health_check_succeeds(system: Project) -> None:
    """All seven services run; the model server is not healthy before it has a model."""
    for service in SERVICES:
        await eventually(lambda one=service: running(system, one), within_s=STARTED_S)
    for service in SERVICES - BROKERS - {"modelserver"}:
        await eventually(lambda one=service: system.healthy(one), within_s=STARTED_S)


async def test_imported_labels_become_a_version_that_answers_photos(system: Project) -> None:
    """The trainer starts a training, the release reaches the edge, and a camera gets the right labels."""
    imported, released = commands(project.blocks()[1])
    system.sh(imported)
    models = system.volume("cloud-store") / "models"
    await eventually((models / "1.tar").exists, within_s=TRAINED_S)
    system.sh(released)
    await eventually(lambda: system.healthy("modelserver"), within_s=STARTED_S)
    assert take_photos(system, "new", first=1000) == {"cat": TAKEN // 2, "dog": TAKEN // 2}


async def test_samples_reach_the_dataset_and_a_label_of_the_console_too(system: Project) -> None:
    """Each harvested photo is stored once; a label given in the browser is stored with it."""
    await eventually(lambda: len(samples(system)) == TAKEN, within_s=STORED_S)
    label_one(system)
    await eventually(lambda: len(samples(system, "human_label = 'dog'")) == 1, within_s=STORED_S)


async def test_everything_survives_a_restart(system: Project) -> None:
    """`docker compose down` and `up` keep the version in service, the samples, the label and the accounts."""
    system.sh("docker compose down")
    system.sh("docker compose up --detach")
    for service in SERVICES - BROKERS:
        await eventually(lambda one=service: system.healthy(one), within_s=STARTED_S)
    assert take_photos(system, "newer", first=2000) == {"cat": TAKEN // 2, "dog": TAKEN // 2}
    await eventually(lambda: len(samples(system)) == 2 * TAKEN, within_s=STORED_S)
    assert len(samples(system, "human_label = 'dog'")) == 1


async def test_a_broker_that_is_killed_comes_back(system: Project) -> None:
    """A container that ends is started again, and everybody reconnects to it."""
    process = system.engine("inspect", "--format={{.State.Pid}}", system.container("edge-broker"))
    os.kill(int(process), signal.SIGKILL)  # `docker kill` would be an order to stay away
    await eventually(lambda: running(system, "edge-broker"), within_s=STARTED_S)
    assert take_photos(system, "newest", first=3000) == {"cat": TAKEN // 2, "dog": TAKEN // 2}


def commands(block: str) -> tuple[str, str]:
    """Return the commands that import photos and that release; that between them follows a log forever."""
    lines = block.replace("\\\n", " ").strip().splitlines()
    (follows,) = [number for number, line in enumerate(lines) if " logs --follow " in line]
    return "\n".join(lines[:follows]), "\n".join(lines[follows + 1 :])


def running(system: Project, service: str) -> bool:
    """Return whether a service has a running container."""
    return bool(system.engine("ps", "--quiet", "--filter", f"label=com.docker.compose.service={service}"))


def take_photos(system: Project, folder: str, *, first: int) -> dict[str, int]:
    """Let a camera take photos, and return how many results had each label."""
    photos = system.folder / folder
    photos.mkdir()
    for number in range(first, first + TAKEN):
        (photos / f"{number}.jpg").write_bytes(photo(number, ("red", "blue")[number % 2], (180, 160)))
    camera = project.blocks()[2].strip().replace("$PWD/photos", str(photos))
    said = system.sh(f"{camera} --interval=0.2 --json")
    results = [json.loads(line) for line in said.splitlines() if line.startswith("{") and '"label"' in line]
    labels = [result["label"] for result in results if result["status"] == "ok"]
    return {label: labels.count(label) for label in set(labels)}


def samples(system: Project, where: str = "TRUE") -> list[str]:
    """Return the ids of the samples in the dataset, imported photos aside."""
    try:
        store = Store.open(system.volume("cloud-store") / "dataset.lance", create=False)
        return [str(row["photo_id"]) for row in store.scan(["photo_id"], where=f"lane = 'audit' AND {where}")]
    except GleanerError:
        return []  # a file was replaced between two reads


def label_one(system: Project) -> None:
    """Log in at the console over HTTPS and label the photo that it shows as a dog."""
    browser = SecureClient(
        SimpleNamespace(url="https://localhost:8765"), system.folder / "site/cloud/https.pem"
    )
    assert browser.log_in("ada") == HTTPStatus.SEE_OTHER
    page = browser.ask("GET", "/review")[1]
    shown = page.partition('data-photo="')[2].partition('"')[0]
    answer = browser.ask("POST", "/review/label", {"photo": shown, "label": "dog", "csrf": browser.csrf()})
    assert answer[0] == HTTPStatus.SEE_OTHER, answer
