"""The graph of a model: from encoded photos to probabilities, embedding and novelty."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import keras
import tensorflow as tf

from cloud.modeling.backbones import Backbone, preprocess
from cloud.modeling.linear_head import Head
from cloud.modeling.novelty import NoveltyModel
from schemas.litert import PIXELS_TENSOR

ENCODED = (tf.TensorSpec([None], tf.string, name="image"),)


@dataclass(frozen=True, slots=True)
class Model:
    """The parts of a trained model.

    Attributes:
        backbone: defines the preprocessing of pixels.
        network: pixels to embedding.
        head: embedding to logits.
        temperature: divides the logits.
        classes: names in the order of the outputs.
        novelty: scores the distance of an embedding to the training set.
        embed: the network as a graph for any number of images, traced at its first call. Called itself, a
            network runs layer by layer, which takes seconds of CPU time at each new number of images.
    """

    backbone: Backbone
    network: keras.Model
    head: Head
    temperature: float
    classes: tuple[str, ...]
    novelty: NoveltyModel
    embed: Callable[[tf.Tensor], tf.Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the graph of the network."""
        images = tf.TensorSpec([None, *self.network.input_shape[1:]], tf.float32)
        network = tf.function(
            lambda images: self.network(images, training=False), input_signature=[images], autograph=False
        )
        object.__setattr__(self, "embed", network)  # the instance is frozen


class ServingModule(tf.Module):  # type: ignore[misc] # TensorFlow ships no types
    """The model as a graph from encoded photos to outputs, and the parts of that graph.

    Attributes:
        decode: encoded photos `[None]` to the network's input.
        embed: the network's input to the embedding.
        judge: the embedding to probabilities and novelty.
        answer: the network's input to all outputs.
        serve: encoded photos to all outputs, as a tf.function with its input signature.

    Args:
        model: the trained model.
        classes_file: file with the class names, an asset of the SavedModel; None if it is not saved.
    """

    def __init__(self, model: Model, classes_file: Path | None = None) -> None:
        super().__init__()
        # The network itself is not an attribute: the loader of TensorFlow Serving does not find variables
        # that are reachable only through a Keras model, and those reachable both ways are written twice.
        self.network_parts = (
            [model.network]  # a tf.Module, whose variables the loader does find
            if isinstance(model.network, tf.Module)
            else [weight.value for weight in model.network.weights]
        )
        # The temperature is folded into the head, which saves a division per call.
        self.kernel = tf.Variable(model.head.kernel / model.temperature, dtype=tf.float32, trainable=False)
        self.bias = tf.Variable(model.head.bias / model.temperature, dtype=tf.float32, trainable=False)
        self.prototypes = tf.Variable(model.novelty.prototypes, dtype=tf.float32, trainable=False)
        if classes_file is not None:
            self.classes = tf.saved_model.Asset(str(classes_file))
        filler = tf.io.encode_png(tf.zeros([1, 1, 3], tf.uint8)).numpy()

        def decode(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return {PIXELS_TENSOR: preprocess(model.backbone, image)}

        def embed(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"embedding": model.network(images, training=False)}

        def judge(embedding: tf.Tensor) -> dict[str, tf.Tensor]:
            probabilities = tf.nn.softmax(embedding @ self.kernel + self.bias)
            similarity = tf.linalg.l2_normalize(embedding, axis=1) @ tf.transpose(self.prototypes)
            # Rounding can make a similarity exceed 1.
            distance = tf.maximum(1.0 - tf.reduce_max(similarity, axis=1), 0.0)
            return {"probabilities": probabilities, "novelty": distance / model.novelty.scale}

        def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
            outputs = embed(images)
            return {**outputs, **judge(outputs["embedding"])}

        def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
            # With oneDNN (AVX-512) TensorFlow's convolutions return a wrong shape for a batch of 0, and the
            # next operation fails. So an empty call runs one filler photo, and every output is cut back to
            # the photos of the call. Otherwise the filler has 0 rows: the network sees the same batch.
            count = tf.shape(image)[0]
            filled = tf.concat([image, tf.repeat([filler], tf.cast(count == 0, tf.int32))], axis=0)
            outputs = answer(decode(filled)[PIXELS_TENSOR])
            return {name: values[:count] for name, values in outputs.items()}

        self.decode, self.embed, self.judge, self.answer = decode, embed, judge, answer
        # No Python control flow for AutoGraph to convert, which would take longer than the tracing.
        self.serve = tf.function(serve, input_signature=ENCODED, autograph=False)

    def parameters(self) -> tf.Module:
        """Return a module with the variables alone: a converter also saves each function of its module."""
        holder = self.head_parameters()
        holder.network_parts = self.network_parts
        return holder

    def head_parameters(self) -> tf.Module:
        """Return a module with the variables of `judge` alone: a converter writes all variables to a disk."""
        holder = tf.Module()
        holder.parts = [self.kernel, self.bias, self.prototypes]
        return holder
