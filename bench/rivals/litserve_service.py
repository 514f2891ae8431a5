"""LitServe with its batching: `python -m bench.rivals.litserve_service PORT`."""

import os
import sys

import litserve as ls
import numpy as np
import tensorflow as tf
from fastapi import Request

from bench.rivals.batches import LATENCY_S, PHOTOS


class Classify(ls.LitAPI):  # type: ignore[misc]  # LitServe ships no types
    """Maps a form with a photo to probabilities, in batches."""

    def setup(self, device: str) -> None:
        """Load the model in the worker process."""
        del device
        self._serve = tf.saved_model.load(os.environ["MODEL"]).signatures["serving_default"]

    def decode_request(self, request: Request) -> bytes:
        """Return the photo of the form."""
        photo: bytes = request["photo"].file.read()
        return photo

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Return the photos unchanged: numpy would strip zero bytes at their end."""
        return inputs

    def predict(self, photos: list[bytes]) -> np.ndarray:
        """Classify a batch."""
        rows: np.ndarray = self._serve(image=tf.constant(photos))["probabilities"].numpy()
        return rows

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """Return a row for each photo."""
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, list[float]]:
        """Return the JSON answer."""
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    api = Classify(max_batch_size=PHOTOS, batch_timeout=LATENCY_S)
    ls.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
