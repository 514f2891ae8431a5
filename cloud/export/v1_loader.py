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


class GraphAnswers:
    """The answers of a version's graph, which is loaded when it is first asked and runs each photo once.

    Several gates ask the same version about the same photos. Memory grows by 4 D + 4 K bytes per photo.

    Args:
        directory: The version directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open = ExitStack()
        self._loaded: SavedModel | None = None
        self._known: dict[bytes, dict[str, NDArray[np.float32]]] = {}

    def __enter__(self) -> Self:
        """Return it as it is: the graph is loaded later."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free the memory of the graph."""
        self._loaded = None
        self._open.close()

    @property
    def graph(self) -> SavedModel:
        """The graph itself, for whoever measures how long it takes; `SavedModel` names what this raises."""
        if self._loaded is None:
            self._loaded = self._open.enter_context(SavedModel(self._directory))
        return self._loaded

    def predict(self, photos: Sequence[bytes]) -> dict[str, NDArray[np.float32]]:
        """Return what `SavedModel.predict` returns for photos; no photos at all have no outputs."""
        missing = list(dict.fromkeys(photo for photo in photos if photo not in self._known))
        if missing:
            outputs = self.graph.predict(missing)
            for row, photo in enumerate(missing):
                self._known[photo] = {name: values[row] for name, values in outputs.items()}
        answers = [self._known[photo] for photo in photos]
        names = answers[0] if answers else ()
        return {name: np.stack([answer[name] for answer in answers]) for name in names}
