"""Photos and networks for several test files."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cloud.dataset.example import Example, Source
from schemas.codec import content_id

MakeExample = Callable[..., Example]


@pytest.fixture(scope="session")
def make_example() -> MakeExample:
    """Return a function that draws a noisy photo, bright at the top ("dawn") or at the bottom ("dusk")."""

    def make(label: str, seed: int, source: Source = "human", weight: float = 1.0) -> Example:
        generator = np.random.default_rng([seed, len(label)])
        slope = np.linspace(200, 20, 60) if label == "dawn" else np.linspace(20, 200, 60)
        tint = generator.uniform(0.5, 1.0, 3)
        array = slope[:, None, None] * tint + generator.normal(0, 12, (60, 80, 3))
        buffer = io.BytesIO()
        Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        image = buffer.getvalue()
        return Example(content_id(image), image, label, source, weight)

    return make


@pytest.fixture(scope="session")
def efficientnet() -> Any:
    """EfficientNet-Lite0 with its ImageNet weights."""
    from cloud.modeling.backbones import EFFICIENTNET_LITE0  # noqa: PLC0415 - TensorFlow only for tests that use it

    return EFFICIENTNET_LITE0.build()
