"""The images of Gleaner: what each is for, how it is built, and how large it may be."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Image:
    """One image of the Dockerfile.

    Args:
        side: value of the build argument SIDE, and the name of its pins in constraints/.
        max_mb: goal for the size of all layers, unpacked, in megabytes (10^6 bytes).
        target: final stage of the Dockerfile.
    """

    side: str
    max_mb: int
    target: str = "gleaner"

    def tag(self, version: str, arch: str) -> str:
        """Return the name in the store: with the architecture if it is not this machine's."""
        return f"localhost/gleaner-{self.side}:{version}" + ("" if arch == native() else f"-{arch}")


IMAGES = (
    Image("device", 120),
    Image("device-all", 350),
    Image("edge", 150),
    Image("litert", 250),
    Image("modelserver", 1600),
    Image("gateway", 150),
    Image("cloud", 2200),
    Image("console", 800),
    Image("broker", 40, target="broker"),
)
ARCHITECTURES = ("amd64", "arm64")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def native() -> str:
    """Return the architecture of this machine, as OCI names it."""
    return _MACHINES.get(platform.machine(), platform.machine())


def chosen(names: Sequence[str]) -> list[Image]:
    """Return the images with these names, all of them for no names.

    Raises:
        ValueError: there is no image of a name.
    """
    unknown = [name for name in names if name not in {image.side for image in IMAGES}]
    if unknown:
        known = ", ".join(image.side for image in IMAGES)
        raise ValueError(f"there is no image {unknown[0]!r}: choose from {known}")
    return [image for image in IMAGES if not names or image.side in names]
