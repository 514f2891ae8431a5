"""What is in the images that `make images` has built, and what is not."""

import json
import os
import subprocess
from collections.abc import Iterator
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy.images.catalog import IMAGES, native
from deploy.images.checkout import read_source
from tests.deploy.images.mounted import Built, mounted

pytestmark = pytest.mark.images

SBOM = "usr/share/sbom/gleaner.cdx.json"
PREFIX = "org.opencontainers.image."
PYTHON = {"python", "python3", "python3.11"}
PROGRAMS = {"broker": {"mosquitto", "mosquitto_ctrl", "mosquitto_passwd"}}
"""The programs of an image; one that is not named here has Python alone."""
OF_A_BUILD = {"pip", "setuptools", "wheel", "ensurepip"}


@pytest.fixture(scope="module", params=IMAGES, ids=lambda image: image.side)
def built(request: pytest.FixtureRequest) -> Iterator[Built]:
    """Each image that is built."""
    with mounted(request.param, native()) as one:
        yield one


def test_it_is_not_larger_than_its_goal(built):
    """All layers unpacked."""
    assert built.stored.size_mb <= built.image.max_mb


def test_its_process_is_not_root(built):
    """The user is a number, which Kubernetes can check, and owns nothing but the folders of its volumes."""
    assert built.stored.user == "10001:10001"
    owned = {
        str(path.relative_to(built.root)) for path in built.root.rglob("*") if path.lstat().st_uid == 10001
    }
    assert all(path.startswith("var/lib/") for path in owned), owned


def test_its_labels_say_what_it_is(built):
    """Title, version, commit, licence and source, by their OCI names."""
    labels = built.stored.labels
    source = read_source()
    assert labels[f"{PREFIX}title"] == f"gleaner-{built.image.side}"
    assert labels[f"{PREFIX}version"] == source.version
    assert len(labels[f"{PREFIX}revision"].removesuffix("-dirty")) == 40
    assert labels[f"{PREFIX}licenses"] in {"Apache-2.0", "EPL-2.0"}
    assert labels[f"{PREFIX}source"] == source.url
    assert labels[f"{PREFIX}description"]


def test_its_sbom_lists_exactly_what_is_in_it(built):
    """A valid CycloneDX document, with the name of the image and each package in its version."""
    text = (built.root / SBOM).read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    assert document["metadata"]["component"]["name"] == f"gleaner-{built.image.side}"
    listed = {(_plain(one["name"]), one["version"]) for one in document["components"]}
    assert listed == {*_debian(built.root), *_python(built.root)}


def test_there_is_no_shell_compiler_or_package_manager_in_it(built):
    """The only programs are Python, or the broker and its own; nothing that installs or builds is left."""
    folders = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin")
    programs = {path.name for folder in folders for path in (built.root / folder).glob("*")}
    assert programs == PROGRAMS.get(built.image.side, PYTHON)
    names = {path.name for path in (built.root / "opt/gleaner").glob("*")} | {
        path.name for path in (built.root / "usr/lib/python3.11").glob("*")
    }
    assert not names & OF_A_BUILD
    assert not list(built.root.rglob("*.h"))
    assert not list(built.root.rglob("*.a"))


def test_it_runs_with_a_read_only_root_and_without_rights(built, tmp_path):
    """As its user, with no capability, no network and nothing to write to, it prints its version."""
    words = (
        ["mosquitto", "-h"]
        if built.image.side == "broker"
        else ["python", "-P", "-m", "gleaner", "--version"]
    )
    done = _run(built.root, words, tmp_path / "bundle")
    wanted = "mosquitto version" if built.image.side == "broker" else f"gleaner {read_source().version}"
    assert wanted in done.stdout, done.stdout


def _run(root: Path, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a container of an image's files."""
    folder.mkdir()
    environment = ["PATH=/usr/bin:/usr/sbin", "PYTHONPATH=/opt/gleaner"]
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 10001, "gid": 10001}, "args": words, "env": environment, "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    name = f"gleaner-test-{os.getpid()}"
    try:
        return subprocess.run(
            ["runc", "run", "--bundle", str(folder), name],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            timeout=120, check=False,
        )  # fmt: skip
    finally:
        subprocess.run(["runc", "delete", "--force", name], capture_output=True, check=False)


def _debian(root: Path) -> set[tuple[str, str]]:
    """Return names and versions of the Debian packages, from their control files."""
    found = set()
    for path in (root / "var/lib/dpkg/status.d").iterdir():
        fields = dict(line.split(": ", 1) for line in path.read_text().splitlines() if ": " in line)
        found.add((_plain(fields["Package"]), fields["Version"]))
    return found


def _python(root: Path) -> set[tuple[str, str]]:
    """Return names and versions of the Python packages, from their metadata."""
    folders = (root / "opt/gleaner").glob("*.dist-info")
    return {(_plain(one.name), one.version) for one in map(PathDistribution, folders)}


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
