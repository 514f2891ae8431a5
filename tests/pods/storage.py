"""Volumes for the claims of an overlay, made by hand as in a cluster without a provisioner."""

from pathlib import Path

from tests.pods.kubectl import Thing
from tests.pods.machine import Machine
from tests.pods.site import USER

CLASS = "local"
STORE = "/var/lib/gleaner/store"
_VOLUMES = {
    "store": (STORE, "50Gi"),
    "broker": ("/var/lib/gleaner/cloud-broker", "4Gi"),
    "console": ("/var/lib/gleaner/console", "2Gi"),
}


def make_folders(machine: Machine) -> None:
    """Make the folders of the volumes on the cloud node."""
    for path, _ in _VOLUMES.values():
        machine.run("install", "-d", "-o", str(USER), "-g", str(USER), path)


def store(machine: Machine) -> Path:
    """Return the folder of the volume `store`, as seen on this machine."""
    return machine.root(STORE)


def objects() -> list[Thing]:
    """Return a default StorageClass and a volume for each claim."""
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    return [storage_class, *(_volume(name, path, size) for name, (path, size) in _VOLUMES.items())]


def _volume(name: str, path: str, size: str) -> Thing:
    on_cloud = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["cloud"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_cloud]}]}},
        },
    }
