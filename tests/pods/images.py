"""The images of the laboratory: Gleaner's own, and small ones that stand in for those of other projects."""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from bus.files.cache_folder import default_cache
from deploy.images.checkout import inputs_of
from deploy.images.engines import DOCKERFILE
from tests.conftest import ROOT
from tests.kubeedge.programs import BuildError
from tests.pods import archive, overlay, runtime
from tests.pods.addresses import PAUSE
from tests.pods.archive import Image
from tests.pods.machine import Machine

EDGE = ("pause", "gleaner-broker", "gleaner-edge", "gleaner-litert")
CLOUD = ("pause", "gleaner-broker", "gleaner-cloud", "gleaner-gateway", "gleaner-nginx")
FLEET = ("gleaner-console",)
"""Images of the cloud that only `overlays/fleet` has."""

_SIDES = ("broker", "edge", "litert", "gateway", "cloud", "console")
_BUILD_S = 2 * 3600
_RECIPE = (DOCKERFILE, ".dockerignore", "tests/pods/images.py", "tests/pods/archive.py")
_PAUSE = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int number) { (void)number; _exit(0); }
static void reap(int number) { (void)number; while (waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) {
    struct sigaction on_end = {.sa_handler = end}, on_child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    sigaction(SIGINT, &on_end, 0);
    sigaction(SIGTERM, &on_end, 0);
    sigaction(SIGCHLD, &on_child, 0);
    for (;;) pause();
}
"""
_MODEL_SERVER = b"""\
#!/usr/bin/python3 -P
# In place of TensorFlow Serving's program, which takes the same flags.
import os
import sys

own = ["--runtime=litert", "--litert_cache=/tmp/litert-variants.json"]
os.execv(sys.executable, [sys.executable, "-P", "-m", "gleaner", "modelserver", *own, *sys.argv[1:]])
"""


def folder() -> Path:
    """Return the folder of the archives."""
    return default_cache() / "pods/images"


def image_name(name: str, tag: str = overlay.TAG) -> str:
    """Return the full name of an image."""
    return PAUSE if name == "pause" else f"{overlay.REGISTRY}/{name}:{tag}"


def load(machine: Machine, names: tuple[str, ...]) -> None:
    """Import images into a machine's containerd, unless it has them from these archives."""
    there = runtime.images(machine)
    for name in names:
        path, full = folder() / f"{name}.tar", image_name(name)
        mark = machine.root(runtime.KEPT) / f"{name}.sha256"
        digest = _digest(path)
        if full in there and mark.exists() and mark.read_text() == digest:
            continue
        runtime.ctr(machine, "images", "import", "--snapshotter", "overlayfs", str(path))
        if (own := archive.name_of(path)) != full:
            runtime.tag(machine, own, full)
        mark.write_text(digest)


def missing() -> list[str]:
    """Return the names of the images that are not built, or were built from other files."""
    current = _mark().exists() and _mark().read_text() == source_digest()
    names = dict.fromkeys((*EDGE, *CLOUD, *FLEET))
    return [name for name in names if not (current and (folder() / f"{name}.tar").exists())]


def source_digest(root: Path = ROOT) -> str:
    """Return a digest of the files of the checkout of which the images are made."""
    inputs = [root / name for name in (*_RECIPE, *inputs_of((root / ".dockerignore").read_text()))]
    digest = hashlib.sha256()
    for path in sorted(path for top in inputs for path in (top, *top.rglob("*"))):
        if path.is_file() and "__pycache__" not in path.parts:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(root)} {content}\n".encode())
    return digest.hexdigest()


def build() -> None:
    """Build the images, unless there are some of the same files.

    Raises:
        BuildError: An image cannot be built.
    """
    if not missing():
        return
    wanted = source_digest()
    folder().mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "deploy.images", *_SIDES, "--archives", str(folder() / "built")],
        cwd=ROOT,
        timeout=_BUILD_S,
        check=False,
    )
    if done.returncode:
        raise BuildError("the images cannot be built; see above", hint="try 'make images'")
    for side in _SIDES:
        base = ".base" if side == "litert" else ""
        (folder() / f"built/{side}.tar").replace(folder() / f"gleaner-{side}{base}.tar")
    derive()
    _mark().write_text(wanted)


def derive() -> None:
    """Write the images that are made from others: sandbox, model server and file server."""
    with tempfile.TemporaryDirectory() as scratch:
        source, program = Path(scratch, "pause.c"), Path(scratch, "pause")
        source.write_text(_PAUSE)
        subprocess.run(["cc", "-O2", "-static", "-o", str(program), str(source)], check=True)
        _write(archive.scratch({"/pause": program.read_bytes()}, Entrypoint=["/pause"]), "pause")
    server = {"/usr/bin/tensorflow_model_server": _MODEL_SERVER}
    _write(archive.read(folder() / "gleaner-litert.base.tar").with_files(server), "gleaner-litert")
    files = ["python", "-m", "http.server", "8080", "--directory", "/usr/share/nginx/html"]
    gateway = archive.read(folder() / "gleaner-gateway.tar")
    _write(gateway.with_files({}, Entrypoint=files, Cmd=[]), "gleaner-nginx")


def _mark() -> Path:
    """Return the file with the digest of what the images were built from."""
    return folder() / "source.sha256"


def _write(image: Image, name: str) -> None:
    archive.write(image, image_name(name), folder() / f"{name}.tar")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
