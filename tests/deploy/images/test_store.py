import json

from deploy.images.store import Stored, read_buildah, read_docker

CONFIG = {"User": "10001:10001", "Labels": {"a": "b"}}
WANTED = Stored("abc", 12.0, {"a": "b"}, "10001:10001", "amd64")


def test_docker_and_podman_describe_an_image():
    """The size is in bytes; the id has a prefix in Docker and none in Podman."""
    for image_id in ("sha256:abc", "abc"):
        text = json.dumps([{"Id": image_id, "Size": 12_000_000, "Architecture": "amd64", "Config": CONFIG}])
        assert read_docker(text) == WANTED


def test_buildah_describes_an_image():
    """The size is the sum of the layers in the stored manifest."""
    layers = [{"size": 4_000_000}, {"size": 8_000_000}]
    oci = {"architecture": "amd64", "config": CONFIG}
    text = json.dumps({"FromImageID": "abc", "OCIv1": oci, "Manifest": json.dumps({"layers": layers})})
    assert read_buildah(text) == WANTED
