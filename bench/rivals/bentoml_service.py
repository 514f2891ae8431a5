"""BentoML with its adaptive batching: `bentoml serve bench.rivals.bentoml_service:Classify`."""

import base64
import os

import bentoml
import tensorflow as tf

from bench.rivals.batches import PHOTOS, TIMEOUT_S


@bentoml.service(workers=1, traffic={"timeout": TIMEOUT_S, "max_concurrency": 1024})
class Classify:
    """Maps photos in base64 to probabilities."""

    def __init__(self) -> None:
        self._serve = tf.saved_model.load(os.environ["MODEL"]).signatures["serving_default"]

    @bentoml.api(batchable=True, max_batch_size=PHOTOS, max_latency_ms=TIMEOUT_S * 1000)  # type: ignore[untyped-decorator]  # BentoML ships no types
    def predict(self, photos: list[str]) -> list[list[float]]:
        """Classify a batch."""
        images = tf.constant([base64.b64decode(photo) for photo in photos])
        rows: list[list[float]] = self._serve(image=images)["probabilities"].numpy().tolist()
        return rows
