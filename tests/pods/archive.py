"""Write container images as archives of `docker save`, without a container tool."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its layers as uncompressed tars, and how its container starts.

    Args:
        layers: From the bottom to the top.
        config: The `config` of its configuration.
    """

    layers: Sequence[bytes]
    config: Mapping[str, Any] = field(default_factory=dict)

    def with_files(self, files: Mapping[str, bytes], **config: object) -> "Image":
        """Return this image with executable files added, and parts of its configuration replaced."""
        return Image([*self.layers, _layer(files)], {**self.config, **config})


def read(path: Path) -> Image:
    """Read an archive with one image."""
    with tarfile.open(path) as archive:
        (manifest,) = json.loads(_content(archive, "manifest.json"))
        config = json.loads(_content(archive, manifest["Config"]))
        return Image([_content(archive, name) for name in manifest["Layers"]], config.get("config", {}))


def name_of(path: Path) -> str:
    """Return the name and tag of the image in an archive."""
    with tarfile.open(path) as archive:
        (manifest,) = json.loads(_content(archive, "manifest.json"))
        return str(manifest["RepoTags"][0])


def scratch(files: Mapping[str, bytes], **config: object) -> Image:
    """Return an image of executable files alone."""
    return Image([_layer(files)], {"Env": [_PATH], **config})


def write(image: Image, name: str, path: Path) -> None:
    """Write an archive; the same image always gives the same bytes."""
    digests = [hashlib.sha256(layer).hexdigest() for layer in image.layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(image.config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    text = json.dumps(config, sort_keys=True).encode()
    config_name = f"{hashlib.sha256(text).hexdigest()}.json"
    layers = [f"{digest}/layer.tar" for digest in digests]
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": layers}]).encode()
    partial = path.with_suffix(".partial")
    with tarfile.open(partial, "w") as archive:
        for member, content in [
            *zip(layers, image.layers, strict=True),
            (config_name, text),
            ("manifest.json", manifest),
        ]:
            _add(archive, member, content)
    partial.rename(path)


def _layer(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, content in files.items():
            _add(archive, path.lstrip("/"), content, mode=0o755)
    return out.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    archive.addfile(info, io.BytesIO(content))


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, name
    return file.read()
