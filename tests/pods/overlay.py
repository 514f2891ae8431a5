"""Apply an overlay of `deploy/kubeedge`, unchanged but for the names of images and nodes."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import yaml

from tests.conftest import ROOT
from tests.pods.kubectl import Kubectl

_OVERLAYS = ROOT / "deploy/kubeedge/overlays"

IMAGES = {
    "eclipse-mosquitto": "gleaner-broker",
    "gleaner-cloud": "gleaner-cloud",
    "gleaner-console": "gleaner-console",
    "gleaner-edge": "gleaner-edge",
    "gleaner-gateway": "gleaner-gateway",
    "gleaner-modelserver": "gleaner-litert",
    "nginxinc/nginx-unprivileged": "gleaner-nginx",
    "tensorflow/serving": "gleaner-litert",
}
"""The image that stands in for each one of an overlay, without registry and tag."""
REGISTRY = "localhost"
TAG = "1"


def write(folder: Path, overlay: str, nodes: Iterable[str], tags: dict[str, str]) -> None:
    """Write a Kustomization with the images and nodes of the laboratory.

    Args:
        folder: Where to.
        overlay: Name of the overlay.
        nodes: The edge nodes that the gateway serves.
        tags: Tag of an image by its name in the laboratory, where it is not `TAG`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    images = [
        {"name": name, "newName": f"{REGISTRY}/{own}", "newTag": tags.get(own, TAG)}
        for name, own in IMAGES.items()
    ]
    tree = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(_OVERLAYS / overlay, folder)],
        "images": images,
        "configMapGenerator": [
            {
                "name": "nodes",
                "namespace": "gleaner",
                "behavior": "replace",
                "literals": [f"NODES={','.join(nodes)}"],
            }
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")


async def apply(
    kubectl: Kubectl, folder: Path, overlay: str, nodes: Iterable[str], tags: dict[str, str] | None = None
) -> str:
    """Apply an overlay, see `write`, and return what kubectl wrote."""
    write(folder, overlay, nodes, tags or {})
    return await kubectl.run("apply", "--kustomize", folder)
