"""Train a backbone and its head from scratch, on a CPU."""

from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from cloud.dataset.example import Example
from cloud.modeling.arrays import Floats, Ints
from cloud.modeling.backbones import Backbone, preprocess
from cloud.modeling.linear_head import Head
from cloud.progress import Progress
from cloud.training.distributed import Team
from cloud.training.embeddings import undecodable
from cloud.training.sample_weights import Mask

BATCH_PHOTOS = 32
LEARNING_RATE = 2e-3
STEPS = (120, 2000)
"""Fewest and most steps of a training; in between, each photo is shown `SHOWN` times on average."""
SHOWN = 20


_SETTLING_STEPS = 30  # with the networks' momentum of 0.9, what the statistics held before is 4 % of them
_LEAST_CROP = 0.65  # of height and of width
_GAIN = 0.2  # contrast and brightness vary by so much, in units of half the value range


def fit_network(
    backbone: Backbone,
    examples: Sequence[Example],
    labels: Ints,
    weights: Floats,
    classes: int,
    *,
    seed: int,
    progress: Progress,
    team: Team,
) -> tuple[keras.Model, Head]:
    """Train a network and a linear head end to end.

    Photos are drawn into batches with the probability of their weight, and at least half of each batch has
    a person's label. Adam with a cosine schedule; photos are flipped, cropped and lit at random. At the
    end the statistics of batch normalisation are taken anew on plain photos with the final weights:
    those gathered along the way lag behind, and short trainings answered at random because of it.

    Args:
        backbone: what to train.
        examples: N photos; they are decoded anew for each batch, so memory does not grow with N.
        labels: `[N]`, in [0, classes).
        weights: `[N]`, those of people's labels at least half of the sum.
        classes: K.
        seed: of the first weights, the batches and the augmentation. Seeds the global generators of
            Keras, NumPy and Python too, because Keras' initialisers use them.
        progress: advances by steps.
        team: each worker computes its part of each batch.

    Returns:
        The trained network and its head.

    Raises:
        TrainingError: a photo cannot be decoded.

    Source: Wu and Johnson, Rethinking "Batch" in BatchNorm (2021), for the statistics.
    """
    keras.utils.set_random_seed(seed)
    steps = step_count(len(examples))
    with team.strategy.scope():
        network = backbone.build()
        dense = keras.layers.Dense(classes)
        trained = keras.Sequential([network, dense])
        trained.build((None, backbone.input_size_px, backbone.input_size_px, 3))
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps))
        optimizer.build(trained.trainable_variables)
    part = team.part(BATCH_PHOTOS)

    def descend(encoded: tf.Tensor, truth: tf.Tensor, draw: tf.Tensor) -> None:
        inputs = augmented(preprocess(backbone, encoded), draw, part, BATCH_PHOTOS)
        with tf.GradientTape() as tape:
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, trained(inputs, training=True))
            loss = tf.reduce_sum(loss) / BATCH_PHOTOS
        gradients = tape.gradient(loss, trained.trainable_variables)
        optimizer.apply(gradients, trained.trainable_variables)  # which adds up those of all workers

    def settle(encoded: tf.Tensor) -> None:
        network(preprocess(backbone, encoded), training=True)

    run_descend = tf.function(lambda *batch: team.strategy.run(descend, batch))
    run_settle = tf.function(lambda *batch: team.strategy.run(settle, batch))
    progress.start("train from scratch", steps + _SETTLING_STEPS)
    human = np.array([example.human for example in examples])
    for number, batch in enumerate(_batches(human, weights, steps + _SETTLING_STEPS, seed)):
        mine = batch[part]
        photos = [examples[position] for position in mine]
        encoded = tf.constant([photo.image for photo in photos])
        try:
            with team.waiting():
                if number < steps:
                    run_descend(encoded, tf.constant(labels[mine]), tf.constant([seed, number]))
                else:
                    run_settle(encoded)
        except tf.errors.InvalidArgumentError as error:
            raise undecodable(error, photos, backbone) from error
        progress.advance()
    kernel, bias = (np.asarray(array, np.float64) for array in dense.get_weights())
    served = backbone.build()  # whose variables are no worker's
    served.set_weights(network.get_weights())
    return served, Head(kernel=kernel, bias=bias)


def step_count(photos: int) -> int:
    """Decide the length of a training."""
    fewest, most = STEPS
    return max(fewest, min(most, photos * SHOWN // BATCH_PHOTOS))


def augmented(images: tf.Tensor, draw: tf.Tensor, part: slice, whole: int) -> tf.Tensor:
    """Flip, crop and light images at random, each its own way.

    Args:
        images: float32 `[N, H, W, 3]`, normalised.
        draw: int64 `[2]`; the same draw gives the same images.
        part: which N of a batch's images these are; an image changes the same whoever computes it.
        whole: how many the batch has.
    """
    seeds = tf.random.split(tf.cast(draw, tf.int32), 4)
    extent = tf.random.stateless_uniform([whole, 2], seeds[0], _LEAST_CROP, 1.0)[part]
    corner = tf.random.stateless_uniform([whole, 2], seeds[1])[part] * (1.0 - extent)
    boxes = tf.concat([corner, corner + extent], axis=1)
    mirrored = tf.random.stateless_uniform([whole, 1], seeds[2])[part] < 0.5  # noqa: PLR2004 - one in two
    boxes = tf.where(mirrored, tf.gather(boxes, [0, 3, 2, 1], axis=1), boxes)
    cropped = tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(boxes)[0]), tf.shape(images)[1:3])
    light = tf.random.stateless_uniform([2, whole, 1, 1, 1], seeds[3], -_GAIN, _GAIN)[:, part]
    return cropped * (1.0 + light[0]) + light[1]


def _batches(human: Mask, weights: Floats, steps: int, seed: int) -> Iterator[Ints]:
    """Draw positions with the probability of their weight, of people's labels their share in each batch."""
    generator = np.random.default_rng(seed)
    by_people = float(weights[human].sum() / weights.sum())

    def draw(of: Mask, count: int) -> Ints:
        if count == 0:
            return np.zeros(0, np.int64)
        return generator.choice(np.flatnonzero(of), count, p=weights[of] / weights[of].sum())

    for _ in range(steps):
        fair = int(
            BATCH_PHOTOS * by_people + generator.random()
        )  # up or down, so that it is right on average
        count = max(fair, -(-BATCH_PHOTOS // 2))
        yield np.concatenate([draw(human, count), draw(~human, BATCH_PHOTOS - count)])
