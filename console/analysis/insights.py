"""The learning curve and doubtful labels, computed again when the dataset changes."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from bus.mqtt.presence import now_ms
from cloud.dataset.store import Store
from cloud.evaluation.labelled_embeddings import LabelledEmbeddings, labelled_embeddings
from cloud.evaluation.learning_curve import LearningCurve, learning_curve
from cloud.labeling.label_judgement import LabelError, LabelledPhoto, judge_labels
from cloud.modeling.blas_threads import one_blas_thread
from cloud.modeling.kernels import principal_components
from cloud.registry.registry import Registry
from schemas.errors import GleanerError

log = structlog.get_logger()

MAX_SETTLED = 4096
_DIMENSIONS = 64
_PAUSE_S = 15.0
"""Least seconds between two computations: labels come one by one, and the curve moves little."""


@dataclass(frozen=True, slots=True)
class Insights:
    """The learning curve and doubtful labels of one version of the dataset.

    Attributes:
        curve: Accuracy by the number of labels.
        doubts: Labels that are probably wrong, least credible first.
        labelled: Photos with a human label.
        embedded: Of these, photos with an embedding; the rest is computed from them.
        dataset_version: That was read.
        at_ms: When it was computed, UTC.
    """

    curve: LearningCurve
    doubts: list[LabelError]
    labelled: int
    embedded: int
    dataset_version: int
    at_ms: int


class InsightDesk:
    """Computes insights while a page shows them, one at a time and not too often.

    A page asks when it is opened and after each computation. So somebody who asked since the last one still
    waits for the next, whenever the dataset changes.

    Args:
        store: The dataset.
        registry: The models folder.
        cache_dir: Embeddings of the trainings; may not exist.
        on_done: Called after each computation.
    """

    def __init__(
        self, store: Store, registry: Registry, cache_dir: Path, on_done: Callable[[], None]
    ) -> None:
        self._store = store
        self._registry = registry
        self.cache_dir = cache_dir
        self._on_done = on_done
        self._latest: Insights | None = None
        self._problem: str | None = None
        self._settled: OrderedDict[str, None] = OrderedDict()
        self._asked = False
        self._due = asyncio.Event()

    @property
    def problem(self) -> str | None:
        """Why the last computation failed, None if it did not."""
        return self._problem

    def latest(self) -> Insights | None:
        """Return the last insights, None before the first; `run` computes them again if they are old."""
        self._asked = True
        self._due.set()
        return self._latest

    def dataset_changed(self) -> None:
        """Compute again if a page has asked since the last computation."""
        if self._asked:
            self._due.set()

    def settle(self, photo_id: str) -> None:
        """Note that a user has resolved a doubtful label, which the dataset may not have yet."""
        self._settled[photo_id] = None
        if len(self._settled) > MAX_SETTLED:
            self._settled.popitem(last=False)

    def is_settled(self, photo_id: str) -> bool:
        """Return whether a user has resolved a label since this process started."""
        return photo_id in self._settled

    async def run(self) -> None:
        """Compute until cancelled. Safe to cancel: a computation that runs is not waited for."""
        while True:
            await self._due.wait()
            self._due.clear()
            began = time.monotonic()
            try:
                done = await asyncio.to_thread(self._compute)
                self._problem = None
            except GleanerError as error:
                log.warning("insights.failed", error=str(error))
                done, self._problem = None, str(error)
            if done is not None:
                self._latest = done
                log.debug("insights.computed", took_s=round(time.monotonic() - began, 1))
            if done is not None or self._problem is not None:
                self._asked = False
                self._on_done()
                await asyncio.sleep(_PAUSE_S)

    def _compute(self) -> Insights | None:
        """Return new insights, None if the dataset is still the same."""
        version = self._store.version
        if self._latest is not None and self._latest.dataset_version == version:
            return None
        # Small matrices: the threads of OpenBLAS would only wait for one another, and for the pages' threads.
        with one_blas_thread():
            return self._read_and_compute(version)

    def _read_and_compute(self, version: int) -> Insights:
        found = labelled_embeddings(self._store, self._registry.cards(), self.cache_dir)
        return insights(found, version)


def insights(found: LabelledEmbeddings, dataset_version: int) -> Insights:
    """Compute the learning curve and doubtful labels.

    Args:
        found: Labels and embeddings.
        dataset_version: That they were read from.
    """
    curve = learning_curve(found.vectors, found.labels, found.devices, seed=0)
    photos = [LabelledPhoto(*one, "human") for one in zip(found.photo_ids, found.labels, strict=True)]
    doubts = []
    if curve.points:
        small = principal_components(found.vectors, _DIMENSIONS)
        doubts = judge_labels(photos, np.stack([small, small]), seed=0)
    return Insights(curve, doubts, found.labelled, len(photos), dataset_version, now_ms())
