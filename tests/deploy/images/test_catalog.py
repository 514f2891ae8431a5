import pytest

from deploy.images.catalog import IMAGES, chosen, native
from tests.conftest import ROOT


def test_every_image_of_a_side_has_pins():
    """Each side that the Dockerfile installs has a file of pinned packages."""
    sides = [image.side for image in IMAGES if image.target == "gleaner"]
    assert [side for side in sides if not (ROOT / f"constraints/{side}.txt").is_file()] == []


def test_no_name_chooses_all_images():
    """Without names, every image is built, in the order of the catalog."""
    assert chosen([]) == list(IMAGES)


def test_names_choose_their_images():
    """Only the named images are built."""
    assert [image.side for image in chosen(["gateway", "edge"])] == ["edge", "gateway"]


def test_an_unknown_name_is_refused_with_the_known_ones():
    """A misspelt image is an error that lists the names."""
    with pytest.raises(ValueError, match=r"there is no image 'egde': choose from device, .*broker"):
        chosen(["edge", "egde"])


def test_only_the_tag_of_another_architecture_names_it():
    """The manifests' tags are those of this machine's images; images for others are kept too."""
    (edge,) = chosen(["edge"])
    assert edge.tag("1.2.3", native()) == "localhost/gleaner-edge:1.2.3"
    other = "arm64" if native() == "amd64" else "amd64"
    assert edge.tag("1.2.3", other) == f"localhost/gleaner-edge:1.2.3-{other}"
