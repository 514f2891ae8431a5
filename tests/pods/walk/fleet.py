"""From bare machines to cameras with results: all steps of the README, with `overlays/fleet`."""

import json
import secrets
import shutil
from pathlib import Path

from tests.nodes import photo
from tests.pods import addresses as at
from tests.pods.lab import PodLab
from tests.pods.models import bundle
from tests.pods.service import Service
from tests.pods.walk.steps import Step, steps
from tests.pods.walk.walker import Walker

PASSWORD = "correct horse battery"
BUCKET = "gleaner"
PHOTOS = 24
_JOIN, _CLOUD, _CAMERA, _CONSOLE = 4, 2, 10, 11
S3_PORT = 7070


async def walk(lab: PodLab, walker: Walker) -> str:
    """Run the README's steps on a lab that is started bare; return what the camera wrote.

    Raises:
        MachineError: A command failed.
        KubectlError: Something was not ready in time.
    """
    for name in lab.edges:
        await lab.boot(name)
    walker.prepare()
    _furnish(walker.folder)
    storage = object_store(lab)
    (walker.folder / "s3.env").write_text("".join(f"{name}={value}\n" for name, value in storage.items()))
    said = ""
    for step in steps():
        if step.number == _CLOUD:
            continue  # keadm fetches KubeEdge's images; cloudcore and edgecore are processes here
        if step.number == _CONSOLE:
            break
        lab.told(f"step {step.number}: {_title(step)}")
        said = await walker.run(step.script, typed=f"{PASSWORD}\n")
        if step.number == _JOIN - 1:
            for name in lab.edges:
                edge = lab.edges[name]
                edge.password = (walker.folder / f"site/edges/{name}.eventbus").read_text().strip()
                await lab.register(name)
    await lab.ready(more=("console",))
    return said


def object_store(lab: PodLab) -> dict[str, str]:
    """Start an S3 server on the cloud machine; return the variables with which clients reach it."""
    folder = "/var/lib/gleaner/s3"
    lab.cloud.machine.run("install", "-d", f"{folder}/{BUCKET}")
    access, secret = "gleaner", secrets.token_hex(16)
    words = ["--port", f":{S3_PORT}", "--access", access, "--secret", secret, "--quiet", "posix", folder]
    server = Service("versitygw", lab.cloud.machine, lab.cloud.folder, [str(lab.programs.s3), *words])
    server.start()
    return {
        "AWS_ACCESS_KEY_ID": access,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{at.CLOUD}:{S3_PORT}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def labels(said: str) -> dict[str, int]:
    """Return how many results of a camera have each label."""
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{") and '"photo_id"' in line]
    found = [line["label"] for line in lines if line.get("status") == "ok"]
    return {label: found.count(label) for label in set(found)}


def _furnish(folder: Path) -> None:
    """Put a trained version and a camera's photos where the README has them."""
    (folder / "models").mkdir()
    shutil.copy(bundle(1), folder / "models/1.tar")
    for number in range(PHOTOS):
        colour, label = (("red", "cat"), ("blue", "dog"))[number % 2]
        path = folder / f"photos/{label}/{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number, colour, (180, 160)))


def _title(step: Step) -> str:
    return step.script.strip().splitlines()[0].strip()[:60]
