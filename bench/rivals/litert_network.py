"""The float32 network of a version in LiteRT, as one would write it: Pillow decodes and resizes."""

import io
import json
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from PIL import Image


class LiteRTNetwork:
    """A network; not thread-safe.

    Args:
        version: Folder of the version.
        threads: Threads of an operation.
    """

    def __init__(self, version: Path, threads: int) -> None:
        extra = version / "assets.extra"
        form = json.loads((extra / "litert.json").read_bytes())["pixels"]
        self._size = form["width"], form["height"]
        self._offset, self._scale = form["offset"], form["scale"]
        self._run = Interpreter(
            model_path=str(extra / "network.tflite"), num_threads=threads
        ).get_signature_runner()
        (self._input,) = self._run.get_input_details()

    def pixels(self, photo: bytes) -> NDArray[np.float32]:
        """Decode, resize and normalise a photo; thread-safe."""
        image = Image.open(io.BytesIO(photo)).convert("RGB").resize(self._size, Image.Resampling.BILINEAR)
        return ((np.asarray(image, np.float32) - self._offset) / self._scale)[np.newaxis]

    def probabilities(self, pixels: NDArray[np.float32]) -> list[float]:
        """Classify."""
        row: list[float] = self._run(**{self._input: pixels})["probabilities"][0].tolist()
        return row
