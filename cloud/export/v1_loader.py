"""A model on disk, loaded as TensorFlow Serving loads it, to ask for its answers."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

SIGNATURE = "serving_default"
OUTPUTS = ("probabilities", "embedding")
LATER_OUTPUTS = ("novelty",)
"""Which models of earlier versions do not have."""
_BATCH_PHOTOS = 32


class SavedModel:
    """A SavedModel behind the V1 loader, open for the length of a `with`.

    Args:
        directory: The version directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Load it.

        Raises:
            tf.errors.OpError, RuntimeError, KeyError, OSError, ValueError: The loader refuses it.
        """
        v1 = tf.compat.v1
        graph = tf.Graph()
        with ExitStack() as opening, graph.as_default():
            self._session = v1.Session(graph=graph)  # not entered: that would make it everybody's
            opening.callback(self._session.close)
            meta_graph = v1.saved_model.loader.load(
                self._session, [tf.saved_model.SERVING], str(self._directory)
            )
            signature = meta_graph.signature_def[SIGNATURE]
            self._image = signature.inputs["image"].name
            names = (*OUTPUTS, *(name for name in LATER_OUTPUTS if name in signature.outputs))
            self._outputs = {name: signature.outputs[name].name for name in names}
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Free it."""
        self._open.close()

    def ask(self, photos: Sequence[bytes]) -> dict[str, NDArray[np.float32]]:
        """Answer encoded photos.

        Returns:
            `probabilities` `[N, K]` and `embedding` `[N, D]`; `novelty` `[N]` where the model says it.
        """
        parts = [
            self._session.run(self._outputs, {self._image: list(photos[start : start + _BATCH_PHOTOS])})
            for start in range(0, len(photos), _BATCH_PHOTOS)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}
