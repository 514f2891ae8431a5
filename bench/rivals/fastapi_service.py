"""FastAPI with the model in its process; a plain `def`, as its documentation recommends for blocking work."""

import os
from typing import Annotated

import tensorflow as tf
from fastapi import Depends, FastAPI, Request

app = FastAPI()
_SERVE = tf.saved_model.load(os.environ["MODEL"]).signatures["serving_default"]


async def _body(request: Request) -> bytes:
    return await request.body()


@app.post("/predict")
def predict(photo: Annotated[bytes, Depends(_body)]) -> dict[str, list[float]]:
    """Classify the photo in the body; FastAPI runs this in a thread."""
    return {"probabilities": _SERVE(image=tf.constant([photo]))["probabilities"][0].numpy().tolist()}
