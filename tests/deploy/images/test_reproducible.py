import subprocess
import sys

import pytest

from deploy.images.catalog import native
from deploy.images.engines import Engine, find_engine
from deploy.images.store import look_up
from tests.conftest import ROOT

BUILD_S = 1800
SIDE, VERSION = "device", "reproducible"


@pytest.mark.images
@pytest.mark.timeout(2 * BUILD_S)
def test_the_same_inputs_make_the_same_image():
    """An image that is built again without any earlier layer has the same id, which names all its layers."""
    engine = find_engine()
    tag = f"localhost/gleaner-{SIDE}:{VERSION}"
    try:
        first, second = build(engine, tag), build(engine, tag)
    finally:
        subprocess.run([engine, "rmi", tag], capture_output=True, check=False)
    assert first == second


def build(engine: Engine, tag: str) -> str:
    """Build the image with no layer of an earlier build and return its id."""
    words = [SIDE, "--engine", engine, "--arch", native(), "--version", VERSION, "--fresh"]
    subprocess.run([sys.executable, "-m", "deploy.images", *words], cwd=ROOT, check=True, timeout=BUILD_S)
    return look_up(engine, tag).image_id
