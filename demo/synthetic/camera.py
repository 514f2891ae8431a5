"""The camera `drawn`: an endless replay of synthetic photos."""

import itertools
import random
from collections.abc import Iterator

from demo.synthetic.collection import seed_of
from demo.synthetic.photo import LOOKS, draw
from demo.synthetic.traits import CLASSES
from device.cameras.base import Camera, CameraError, Frame
from device.cameras.replay import ReplayCamera


def synthetic_camera(*, seed: int = 0, look: str = "daylight", count: int | None = None) -> Camera:
    """Return a camera that draws cats and dogs.

    Args:
        seed: Seed of the photos; the same seed draws the same ones.
        look: Name of the camera's characteristics, one of `LOOKS`.
        count: How many photos to draw; without end if None.

    Raises:
        CameraError: The look is unknown.
    """
    if look not in LOOKS:
        raise CameraError(f"camera 'drawn' has no look {look!r}", hint=f"use one of {', '.join(LOOKS)}")

    def frames() -> Iterator[Frame]:
        chance = random.Random(seed)  # which animal comes next is not secret
        for number in itertools.count() if count is None else range(count):
            label = chance.choice(CLASSES)
            image = draw(label, seed_of("camera", seed, number), LOOKS[look])
            yield Frame(image, f"drawn:{label}-{number:05d}", label)

    return ReplayCamera(frames, "camera drawn")
