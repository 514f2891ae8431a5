"""Look up an image in an engine's store."""

import json
import subprocess
from typing import NamedTuple

from deploy.images.engines import Engine

_QUERY_S = 60.0


class Stored(NamedTuple):
    """An image as the engine describes it.

    Args:
        image_id: SHA-256 of its configuration, which names the layers: equal ids are equal images.
        size_mb: all layers unpacked, in megabytes (10^6 bytes).
        labels: its OCI labels.
        user: user and group that its process gets.
        arch: architecture, such as `arm64`.
    """

    image_id: str
    size_mb: float
    labels: dict[str, str]
    user: str
    arch: str


def look_up(engine: Engine, tag: str) -> Stored:
    """Return what the store records about an image.

    Raises:
        subprocess.CalledProcessError: there is no such image.
    """
    command = [engine, "inspect", "--type", "image", tag]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_S, check=True)  # noqa: S603
    return read_buildah(done.stdout) if engine is Engine.BUILDAH else read_docker(done.stdout)


def read_docker(text: str) -> Stored:
    """Return an image from what `docker inspect` or `podman inspect` printed."""
    (found,) = json.loads(text)
    config = found["Config"]
    image_id = found["Id"].removeprefix("sha256:")
    return Stored(
        image_id, found["Size"] / 1e6, config["Labels"] or {}, config["User"], found["Architecture"]
    )


def read_buildah(text: str) -> Stored:
    """Return an image from what `buildah inspect` printed; the layers of its manifest are unpacked ones."""
    found = json.loads(text)
    oci = found["OCIv1"]
    size = sum(layer["size"] for layer in json.loads(found["Manifest"])["layers"])
    config = oci["config"]
    return Stored(
        found["FromImageID"], size / 1e6, config["Labels"] or {}, config["User"], oci["architecture"]
    )
