"""Images for ARM, run on this machine by qemu."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.images.catalog import IMAGES
from tests.conftest import DEADLINE_S
from tests.deploy.images.mounted import mounted
from tests.device.conftest import DEVICE, NODE, Edge
from tests.nodes import photo

pytestmark = [pytest.mark.images, pytest.mark.timeout(600)]

QEMU = "qemu-aarch64-static"
ENVIRONMENT = {
    "PATH": "/usr/bin",
    "PYTHONPATH": "/opt/gleaner",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HOME": "/tmp",
}
AARCH64 = 183
"""The machine of an ELF file; amd64 is 62."""


@pytest.fixture(scope="module", params=["device", "edge"])
def arm(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The files of an image for arm64, with qemu among them."""
    if not (qemu := shutil.which(QEMU)):
        pytest.skip("needs qemu: apt-get install qemu-user-static")
    (image,) = [one for one in IMAGES if one.side == request.param]
    with mounted(image, "arm64") as built:
        assert built.stored.arch == "arm64"
        assert built.stored.size_mb <= image.max_mb
        shutil.copy(qemu, built.root)
        yield built.root


def gleaner(root: Path, *words: str) -> list[str]:
    """Return the command line of `gleaner` in an image, as the image's user, on emulated ARM."""
    inside = [f"/{QEMU}", "/usr/bin/python3.11", "-P", "-m", "gleaner", *words]
    return ["/usr/sbin/chroot", "--userspec=10001:10001", str(root), *inside]


def test_every_library_is_of_that_architecture(arm):
    """No file of this machine's architecture slipped in with a wheel."""
    files = [
        path for path in arm.rglob("*") if path.is_file() and not path.is_symlink() and path.name != QEMU
    ]
    machines = {path: machine for path in files if (machine := elf_machine(path)) is not None}
    assert len(machines) > 20
    assert {path for path, machine in machines.items() if machine != AARCH64} == set()


def elf_machine(path: Path) -> int | None:
    """Return the machine of a program or library, None for any other file."""
    with path.open("rb") as file:
        header = file.read(20)
    return int.from_bytes(header[18:20], "little") if header.startswith(b"\x7fELF") else None


def test_its_command_line_answers(arm, request):
    """`gleaner SIDE --help` imports all that the side needs."""
    side = request.node.callspec.params["arm"]
    done = subprocess.run(
        gleaner(arm, side, "--help"),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert f"usage: gleaner {side}" in done.stdout, done.stderr


@pytest.mark.parametrize("arm", ["device"], indirect=True)
async def test_the_device_publishes_a_photo_and_gets_its_result(arm, address):
    """An emulated camera device sends a photo to a real broker and prints the answer."""
    (arm / "tmp/photos").mkdir()
    sent = photo(1)
    (arm / "tmp/photos/1.jpg").write_bytes(sent)
    words = ("--node", NODE, "--name", DEVICE, "--camera", "folder:/tmp/photos", "--count", "1", "--json")
    broker = ("--broker", f"127.0.0.1:{address.port}", "--state-dir", "/tmp/state")
    async with Edge(address).running() as edge, asyncio.timeout(2 * DEADLINE_S):
        process = await asyncio.create_subprocess_exec(
            *gleaner(arm, "device", *words, *broker), env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert [one.image for one in edge.taken()] == [sent]
    assert b'"label": "cat"' in output or b'"label":"cat"' in output
