"""A network with random weights and the size of a small production network.

`python -m bench.network DIR` writes it as a SavedModel. It is a separate process because it loads TensorFlow.
"""

import itertools
import sys
from pathlib import Path

import tensorflow as tf

CLASSES = ("cat", "dog")
_SIDE_PX = 128
_CHANNELS = 64
_LAYERS = 8
_HALVED = (1, 4)


class Network(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """Maps encoded photos to probabilities and embeddings through plain convolutions."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *[_CHANNELS] * _LAYERS]
        draw = tf.random.Generator.from_seed(1)
        self.kernels = [
            tf.Variable(draw.normal([3, 3, before, after], stddev=0.06))
            for before, after in itertools.pairwise(widths)
        ]
        self.head = tf.Variable(draw.normal([_CHANNELS, len(CLASSES)]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])  # type: ignore[untyped-decorator]  # as above
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classify encoded photos."""
        shape = tf.TensorSpec([_SIDE_PX, _SIDE_PX, 3], tf.float32)
        value = tf.map_fn(_pixels, image, fn_output_signature=shape)
        for layer, kernel in enumerate(self.kernels):
            value = tf.nn.relu(tf.nn.conv2d(value, kernel, 2 if layer in _HALVED else 1, "SAME"))
        embedding = tf.reduce_mean(value, [1, 2])
        return {"probabilities": tf.nn.softmax(embedding @ self.head), "embedding": embedding}


def _pixels(image: tf.Tensor) -> tf.Tensor:
    decoded = tf.io.decode_image(image, channels=3, expand_animations=False)
    return tf.ensure_shape(tf.image.resize(decoded, [_SIDE_PX, _SIDE_PX]) / 255.0, [_SIDE_PX, _SIDE_PX, 3])


def write(directory: Path) -> None:
    """Write the network as a SavedModel with its class names."""
    network = Network()
    tf.saved_model.save(network, str(directory), signatures={"serving_default": network.serve})
    (directory / "assets").mkdir(exist_ok=True)
    (directory / "assets/classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
