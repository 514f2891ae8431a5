"""Command lines of the programs that build images: Docker, Podman, and buildah where there is no engine."""

import shutil
import subprocess
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

DOCKERFILE = "deploy/images/Dockerfile"
_ANSWER_S = 20.0


class Engine(StrEnum):
    """A program that builds images from a Dockerfile."""

    DOCKER = "docker"
    PODMAN = "podman"
    BUILDAH = "buildah"


@dataclass(frozen=True, slots=True)
class Build:
    """What an engine is asked to build.

    Args:
        target: stage of the Dockerfile.
        tag: name of the image.
        arch: architecture as Debian and OCI name it, such as `amd64`.
        base: image with which the build starts; nothing of it is in the result.
        epoch_s: time of all files and of the image, seconds since 1970.
        arguments: further build arguments.
        authorities: file with the certificates that this machine trusts, or None for those of Debian.
    """

    target: str
    tag: str
    arch: str
    base: str
    epoch_s: int
    arguments: dict[str, str] = field(default_factory=dict)
    authorities: Path | None = None


def find_engine(wanted: str | None = None) -> Engine:
    """Return the first engine that answers, or the wanted one.

    Raises:
        RuntimeError: there is none.
    """
    engines = [Engine(wanted)] if wanted else list(Engine)
    for engine in engines:
        if _answers(engine):
            return engine
    names = " or ".join(engines)
    raise RuntimeError(
        f"cannot build images: no {names} answers; on Debian: apt-get install buildah mmdebstrap, as root"
    )


def _answers(engine: Engine) -> bool:
    """Return True if this user can use an engine; Docker's command may be there without its service."""
    if not shutil.which(engine):
        return False
    done = subprocess.run([engine, "info"], capture_output=True, timeout=_ANSWER_S, check=False)  # noqa: S603
    return done.returncode == 0


def build_command(engine: Engine, build: Build, *, fresh: bool = False) -> list[str]:
    """Return the command that builds an image in the checkout; `fresh` uses no earlier layer."""
    arguments = {"BASE": build.base, "SOURCE_DATE_EPOCH": str(build.epoch_s), **build.arguments}
    secret = ["--secret", f"id=ca,src={build.authorities}"] if build.authorities else []
    return [
        *_BUILD[engine],
        *_timestamp(engine, build),
        *(["--no-cache"] if fresh else []),
        "--file", DOCKERFILE,
        "--platform", f"linux/{build.arch}",
        "--target", build.target,
        *(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")),
        *secret,
        ".",
    ]  # fmt: skip


# In a chroot instead of a container for each step, which not every machine can start.
_IN_CHROOT = ("--layers", "--identity-label=false", "--isolation", "chroot", "--network", "host")
_BUILD = {
    Engine.DOCKER: ("docker", "buildx", "build"),
    Engine.PODMAN: ("podman", "build", *_IN_CHROOT),
    Engine.BUILDAH: ("buildah", "bud", *_IN_CHROOT),
}


def _timestamp(engine: Engine, build: Build) -> list[str]:
    """Return the options that name the image and give it and its files one time."""
    if engine is Engine.DOCKER:
        return ["--output", f"type=docker,name={build.tag},rewrite-timestamp=true", "--provenance=false"]
    return ["--timestamp", str(build.epoch_s), "--tag", build.tag]


def import_commands(engine: Engine, archive: Path, tag: str) -> list[list[str]]:
    """Return the commands that make an image of one layer from a tar file."""
    if engine is not Engine.BUILDAH:
        return [[engine, "import", str(archive), tag]]
    container = "gleaner-base-import"
    return [
        ["buildah", "from", "--name", container, "scratch"],
        ["buildah", "add", "--quiet", container, str(archive), "/"],
        ["buildah", "commit", "--quiet", "--rm", container, tag],
    ]


def relabel_commands(tag: str, new_tag: str, arch: str) -> list[list[str]]:
    """Return buildah's commands that store an image under another name and architecture."""
    container = "gleaner-base-relabel"
    return [
        ["buildah", "from", "--name", container, tag],
        ["buildah", "config", "--arch", arch, container],
        ["buildah", "commit", "--quiet", "--rm", "--timestamp", "0", container, new_tag],
    ]


def save_command(engine: Engine, tag: str, archive: Path) -> list[str]:
    """Return the command that writes an image to a file, for `docker load` and `ctr images import`."""
    if engine is Engine.BUILDAH:
        return ["buildah", "push", "--quiet", tag, f"docker-archive:{archive}:{tag}"]
    extra = ["--format", "docker-archive"] if engine is Engine.PODMAN else []
    return [engine, "save", *extra, "--output", str(archive), tag]
