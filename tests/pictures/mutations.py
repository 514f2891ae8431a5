"""Seeded mutations of pictures, of every kind by which check and decoder can come to differ."""

import random
import zlib
from collections.abc import Iterator

from tests.pictures.jpeg_mutations import JPEG
from tests.pictures.odd import odd_pictures
from tests.pictures.png_mutations import PNG


def mutated(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield endlessly a name and a picture with one to three mutations; the same for each seed."""
    draw = random.Random(seed)
    pictures = list(odd_pictures().items())
    while True:
        name, image = draw.choice(pictures)
        names = [name]
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            mutation = draw.choice(JPEG if image[:1] == b"\xff" else PNG)
            names.append(mutation.__name__)
            try:
                image = mutation(image, draw)
            except (IndexError, ValueError, OverflowError, StopIteration, zlib.error):
                # An earlier mutation left nothing to change.
                break
        yield " ".join(names), image
