"""The files of an image that `make images` has built."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.images.catalog import Image
from deploy.images.checkout import read_source
from deploy.images.engines import Engine
from deploy.images.store import Stored, look_up


class Built(NamedTuple):
    """An image in buildah's store, which is podman's too, and its files, mounted."""

    image: Image
    stored: Stored
    root: Path


@contextmanager
def mounted(image: Image, arch: str) -> Iterator[Built]:
    """Mount an image for the length of a block; skip the test where there is none."""
    tag = image.tag(read_source().version, arch)
    if os.geteuid() != 0 or not shutil.which("buildah"):
        pytest.skip("needs root and buildah")
    try:
        stored = look_up(Engine.BUILDAH, tag)
    except subprocess.CalledProcessError:
        pytest.skip(f"{tag} is not built: run `make images IMAGES={image.side} ARGS='--arch {arch}'`")
    container = _buildah("from", "--pull-never", tag)
    try:
        yield Built(image, stored, Path(_buildah("mount", container)))
    finally:
        _buildah("umount", container)
        _buildah("rm", container)


def _buildah(*words: str) -> str:
    done = subprocess.run(
        [Engine.BUILDAH, *words], capture_output=True, text=True, timeout=300, check=True
    )  # fmt: skip
    return done.stdout.strip()
