import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy.images import sbom

CONTROL = (
    "Package: libc6\nVersion: 2.36-9+deb12u14\nArchitecture: amd64\nDescription: GNU C Library\n more words\n"
)
METADATA = (
    "Metadata-Version: 2.4\nName: Paho_MQTT\nVersion: 2.2.0\nLicense-Expression: EPL-2.0 OR BSD-3-Clause\n"
)
LONG = (
    "Metadata-Version: 2.1\nName: old\nVersion: 1\n"
    "Classifier: License :: OSI Approved :: MIT License\nLicense: " + "x" * 300
)


@pytest.fixture
def image(tmp_path) -> Path:
    """What the build stage has: control files of Debian's packages, and a folder of Python packages."""
    (tmp_path / "status.d").mkdir()
    (tmp_path / "status.d/libc6").write_text(CONTROL)
    for name, metadata in (("paho_mqtt-2.2.0", METADATA), ("old-1", LONG)):
        (tmp_path / f"tree/{name}.dist-info").mkdir(parents=True)
        (tmp_path / f"tree/{name}.dist-info/METADATA").write_text(metadata)
    return tmp_path


def write(image: Path, name: str = "out.json", *more: str) -> str:
    """Return the document that is written for an image."""
    words = ["--side", "edge", "--version", "1.2.3", "--revision", "abc", "--epoch", "1700000000"]
    sbom.main([*words, "--packages", str(image / "status.d"), "--out", str(image / name), *more])
    return (image / name).read_text()


def test_an_image_lists_debian_and_python_packages(image):
    """Each package has a version and a package URL that scanners look up."""
    document = json.loads(write(image, "out.json", "--tree", str(image / "tree")))
    assert {one["purl"] for one in document["components"]} == {
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12",
        "pkg:pypi/paho-mqtt@2.2.0",
        "pkg:pypi/old@1",
    }
    assert document["metadata"]["component"]["name"] == "gleaner-edge"
    assert document["metadata"]["component"]["version"] == "1.2.3"


def test_licences_are_names_and_not_texts(image):
    """A licence is an expression or a name; a text in its place is replaced by the classifier."""
    document = json.loads(write(image, "out.json", "--tree", str(image / "tree")))
    licences = {one["name"]: one.get("licenses") for one in document["components"]}
    assert licences["Paho_MQTT"] == [{"expression": "EPL-2.0 OR BSD-3-Clause"}]
    assert licences["old"] == [{"license": {"name": "MIT License"}}]


def test_the_document_is_valid_cyclonedx(image):
    """CycloneDX's own JSON Schema accepts it."""
    text = write(image, "out.json", "--tree", str(image / "tree"))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_same_packages_give_the_same_bytes(image):
    """Neither the clock nor a random number is in the document: it is a part of a reproducible image."""
    assert write(image, "one.json") == write(image, "two.json")


def test_the_broker_has_no_python_packages(image):
    """Without a folder of Python packages, only Debian's are listed."""
    assert [one["name"] for one in json.loads(write(image))["components"]] == ["libc6"]
