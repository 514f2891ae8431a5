"""Rules of cloud/labeling/embedder.py: mirror images are embedded only where they show the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.labeling.embedder import Embedder
from cloud.modeling.backbones import EFFICIENTNET_LITE0, EFFICIENTNET_LITE0_GRID
from cloud.progress import NoProgress
from tests.cloud import tiny

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


def test_a_backbone_for_digits_gets_no_mirror_images(make_example: Any, tmp_path: Path) -> None:
    """A mirrored 2 is no 2: a teacher must not learn from it. The photos' own embeddings are the same."""
    photos = [make_example("dawn", seed) for seed in range(3)]
    both, one = (
        Embedder.open(f"{tiny.__name__}:{name}", tmp_path).embed(photos, NoProgress())
        for name in ("TINY", "UNMIRRORED")
    )
    assert (both.shape, one.shape) == ((2, 3, 96), (1, 3, 96))
    np.testing.assert_array_equal(both[0], one[0])
    assert EFFICIENTNET_LITE0.mirrored
    assert not EFFICIENTNET_LITE0_GRID.mirrored
