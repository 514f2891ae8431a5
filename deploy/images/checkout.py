"""What an image is built from: the version, the commit and its time, read from the checkout."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from deploy.images.engines import DOCKERFILE

ROOT = Path(__file__).resolve().parent.parent.parent
_RECIPE = ("constraints", "deploy/images")
_CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
_GIT_S = 60.0
_SCP_FORM = re.compile(r"(?:[^@/]+@)?(?P<host>[^:/]+):(?P<path>[^/].*)")


class Source(NamedTuple):
    """The state of the checkout.

    Args:
        version: of the project.
        revision: the last commit that changed a file of which images are made, `-dirty` after later changes.
        epoch_s: seconds since 1970, the time of the last commit that changed pins or recipe. All files have
            this time, so that the layers of the packages stay the same when only Gleaner's code has changed.
        url: where the source is published; empty if the checkout has no such remote.
    """

    version: str
    revision: str
    epoch_s: int
    url: str = ""


def read_source(root: Path = ROOT) -> Source:
    """Return the state of a checkout; a folder without git is `unknown`, from 1 January 1980."""
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    inputs = inputs_of((root / ".dockerignore").read_text(encoding="utf-8"))
    revision = _git(root, "log", "-1", "--format=%H", "--", *inputs).strip()
    recipe = [name for name in inputs if name.startswith(_RECIPE)]
    epoch_s = _git(root, "log", "-1", "--format=%ct", "--", DOCKERFILE, *recipe).strip()
    if not (revision and epoch_s):
        return Source(version, "unknown", 315_532_800)
    dirty = "-dirty" if _git(root, "status", "--porcelain", "--", *inputs).strip() else ""
    url = public_url(_git(root, "remote", "get-url", "origin").strip())
    return Source(version, revision + dirty, int(epoch_s), url)


def inputs_of(dockerignore: str) -> list[str]:
    """Return the files and folders of a build: the exceptions of a `.dockerignore` that excludes all."""
    return [line[1:] for line in dockerignore.splitlines() if line.startswith("!")]


def public_url(remote: str) -> str:
    """Return the web address of a Git remote, without a user's name or token; empty for a folder.

    Args:
        remote: such as `https://…`, `ssh://git@…` or `git@host:path`.
    """
    if "://" not in remote and (found := _SCP_FORM.fullmatch(remote)):
        return f"https://{found['host']}/{found['path'].removesuffix('.git')}"
    parts = urlsplit(remote)
    if parts.scheme not in ("https", "http", "ssh", "git") or not parts.hostname:
        return ""
    port = f":{parts.port}" if parts.port and parts.scheme in ("https", "http") else ""
    return f"https://{parts.hostname}{port}{parts.path.removesuffix('.git')}"


def authorities() -> Path | None:
    """Return the certificates that the environment tells clients to trust; None without such a setting."""
    named = (os.environ.get(name) for name in _CERTIFICATES)
    return next((Path(name) for name in named if name and Path(name).is_file()), None)


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S, check=False)  # noqa: S603
    return done.stdout if done.returncode == 0 else ""
