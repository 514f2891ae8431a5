"""Load a SavedModel with TensorFlow's V1 loader, as TensorFlow Serving does, and run it."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

SERVING_SIGNATURE = "serving_default"
OUTPUTS = ("probabilities", "embedding")
LATER_OUTPUTS = ("novelty",)
"""Outputs that models exported by earlier versions do not have."""
_BATCH_PHOTOS = 32


class SavedModel:
    """A SavedModel in a V1 session, loaded for the length of a `with` block.

    Args:
        directory: The version directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Load the model.

        Raises:
            tf.errors.OpError, RuntimeError, KeyError, OSError, ValueError: The loader refuses it.
        """
        v1 = tf.compat.v1
        graph = tf.Graph()
        with ExitStack() as opening, graph.as_default():
            # Not `with Session()`: that would make it the default session of the calling thread.
            self._session = v1.Session(graph=graph)
            opening.callback(self._session.close)
            meta_graph = v1.saved_model.loader.load(
                self._session, [tf.saved_model.SERVING], str(self._directory)
            )
            signature = meta_graph.signature_def[SERVING_SIGNATURE]
            self._image = signature.inputs["image"].name
            names = (*OUTPUTS, *(name for name in LATER_OUTPUTS if name in signature.outputs))
            self._outputs = {name: signature.outputs[name].name for name in names}
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the session and free its memory."""
        self._open.close()

    def predict(self, photos: Sequence[bytes]) -> dict[str, NDArray[np.float32]]:
        """Run encoded photos through the model, 32 at a time; no photos at all are one empty call.

        Returns:
            `probabilities` `[N, K]`, `embedding` `[N, D]`, and `novelty` `[N]` if the model has that output.

        Raises:
            tf.errors.InvalidArgumentError: A photo cannot be decoded.
        """
        parts = [
            self._session.run(self._outputs, {self._image: list(photos[start : start + _BATCH_PHOTOS])})
            for start in range(0, max(1, len(photos)), _BATCH_PHOTOS)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}
