"""Losses of trainings from scratch: kept for the report, and written as events for TensorBoard."""

from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tensorflow as tf


class LossCurves:
    """Records losses for the length of a `with` block.

    Events are written with TensorFlow alone; the package `tensorboard` only reads them.

    Args:
        folder: where the events are written, a folder per training of one network; None to write none.

    Attributes:
        losses: `(step, loss)` by name of the training.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}
        self.losses: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)

    def __enter__(self) -> Self:
        """Start; files are created with the first loss."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush and close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def new_name(self) -> str:
        """Return the name of the next training: `fit-1`, `fit-2` and so on."""
        name = f"fit-{len(self.losses) + 1}"
        self.losses[name] = []
        return name

    def add(self, name: str, step: int, loss: float) -> None:
        """Record a loss."""
        self.losses[name].append((step, loss))
        if self._folder is None:
            return
        if name not in self._writers:
            self._writers[name] = tf.summary.create_file_writer(str(self._folder / name))
        with self._writers[name].as_default():
            tf.summary.write("loss", tf.constant(loss, tf.float32), step=step, metadata=_scalar())


def _scalar() -> Any:
    """Return the metadata by which TensorBoard draws a curve."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    metadata.data_class = 1  # DATA_CLASS_SCALAR
    return metadata
