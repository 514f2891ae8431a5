import json
import subprocess
import sys
import zipfile

import jsonschema
import pytest
import yaml

from cli.main import parser_of
from deploy.images.catalog import IMAGES
from tests.conftest import ROOT

COMPOSE = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
DOWNLOAD_S = 300


@pytest.mark.images
def test_the_file_is_valid_compose(tmp_path):
    """The schema of the Compose specification, of docker-compose's wheel, accepts the file."""
    words = ["download", "--quiet", "--no-deps", "--dest", str(tmp_path), "docker-compose==1.29.2"]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=DOWNLOAD_S)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        schema = json.loads(archive.read("compose/config/compose_spec.json"))
    # This release of the schema is older than the top-level name, which the specification has had since 2022.
    known = {key: value for key, value in COMPOSE.items() if key != "name"}
    jsonschema.Draft201909Validator(schema).validate(known)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_locked_down(name):
    """Read-only root, no capabilities, no new privileges; it comes back after a crash or a reboot."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"


def test_every_service_but_the_brokers_has_a_health_check():
    """`docker compose ps` shows which one hangs; the image of the broker has only mosquitto."""
    unchecked = {name for name, service in SERVICES.items() if "healthcheck" not in service}
    assert unchecked == {"cloud-broker", "edge-broker"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_runs_an_image_that_is_built_here(name):
    """`make images` builds each image of the file under the same name."""
    names = {f"localhost/gleaner-{image.side}" for image in IMAGES}
    assert SERVICES[name]["image"].rpartition(":${")[0] in names


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in {"cloud-broker", "edge-broker"}])
def test_the_command_of_each_service_exists(name):
    """`gleaner` accepts the words of each command; the model server has TensorFlow Serving's flags."""
    first, *words = SERVICES[name]["command"]
    if first == "modelserver":
        from edge.modelserver import flags  # noqa: PLC0415 - for one service

        assert flags.parse(words).port == 8500
    else:
        parser_of(first)[0].parse_args(words)


def test_every_named_volume_is_declared():
    """A folder that is to survive is a declared volume."""
    mounts = [mount.split(":")[0] for service in SERVICES.values() for mount in service["volumes"]]
    assert {mount for mount in mounts if not mount.startswith("$")} == set(COMPOSE["volumes"])
