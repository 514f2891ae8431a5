import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.images.checkout import read_source
from deploy.images.engines import Engine
from tests.conftest import ROOT
from tests.nodes import photo

IMAGE = f"localhost/gleaner-cloud:{read_source().version}"
MANIFESTS = ROOT / "deploy/kubeedge"
NAME = "gleaner-test-trainer"
PHOTOS = 48
TRAIN_S = 1800
UNITS = {"Gi": 1024**3}


@pytest.fixture
def container(tmp_path) -> Iterator[Path]:
    """The root file system of the cloud's image, which `make images` has built."""
    if os.geteuid() != 0 or not (shutil.which("buildah") and shutil.which("runc")):
        pytest.skip("needs root, buildah and runc")
    if subprocess.run(
        [Engine.BUILDAH, "inspect", "--type", "image", IMAGE], capture_output=True, check=False
    ).returncode:
        pytest.skip(f"{IMAGE} is not built: run `make images IMAGES=cloud`")
    name = buildah("from", "--pull-never", IMAGE)
    try:
        yield Path(buildah("mount", name))
    finally:
        buildah("umount", name)
        buildah("rm", name)


@pytest.mark.images
@pytest.mark.timeout(2 * TRAIN_S)
def test_the_trainer_of_the_manifests_trains_in_its_image(container, tmp_path):
    """With the pod's user, arguments, memory, read-only root and volume, a dataset becomes a version."""
    store = tmp_path / "store"
    put_photos(store / "photos")
    subprocess.run(["chown", "-R", "10001:10001", str(store)], check=True)
    trainer = yaml.safe_load((MANIFESTS / "base/cloud/trainer.yaml").read_text())
    pod = trainer["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    arguments, resources = (
        change["value"]
        for change in yaml.safe_load((MANIFESTS / "overlays/single-node/trainer.yaml").read_text())
    )
    for words in (["cloud", "import", "/store/photos", "--dataset=/store/dataset.lance"], arguments):
        done = run(container, pod, words, resources["limits"]["memory"], store, tmp_path)
        assert done.returncode == 0, done.stdout[-3000:]
        assert "Traceback" not in done.stdout
    assert "version 1: /store/models/1.tar" in done.stdout
    assert (store / "models/1.tar").stat().st_uid == pod["securityContext"]["runAsUser"]


def put_photos(folder: Path) -> None:
    for number in range(PHOTOS):
        colour, label = (("red", "cat"), ("blue", "dog"))[number % 2]
        path = folder / label / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number, colour, (180, 160)))


def run(
    root: Path, pod: dict[str, Any], words: list[str], memory: str, store: Path, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run a command in a container with the security context of a pod, and without a network."""
    with bundle(root, pod, words, memory, store, folder / "bundle") as place:
        return subprocess.run(
            ["runc", "run", "--bundle", str(place), NAME],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=TRAIN_S,
            check=False,
        )


@contextmanager
def bundle(
    root: Path, pod: dict[str, Any], words: list[str], memory: str, store: Path, folder: Path
) -> Iterator[Path]:
    (one,) = pod["containers"]
    image = json.loads(buildah("inspect", "--type", "image", IMAGE))["OCIv1"]["config"]
    user = pod["securityContext"]
    environment = [*image["Env"], *(f"{entry['name']}={entry['value']}" for entry in one["env"])]
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": user["runAsUser"], "gid": user["runAsGroup"]},
            "args": [*image["Entrypoint"], *words],
            "env": environment,
            "cwd": "/",
            "noNewPrivileges": not one["securityContext"]["allowPrivilegeEscalation"],
        },
        "root": {"path": str(root), "readonly": one["securityContext"]["readOnlyRootFilesystem"]},
        "hostname": "trainer",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["mode=1777"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmp", "options": ["mode=1777"]},
            {"destination": "/store", "type": "bind", "source": str(store), "options": ["rbind"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "resources": {"memory": {"limit": int(memory[:-2]) * UNITS[memory[-2:]]}},
        },
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    try:
        yield folder
    finally:
        subprocess.run(["runc", "delete", "--force", NAME], capture_output=True, check=False)


def buildah(*words: str) -> str:
    done = subprocess.run([Engine.BUILDAH, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()
