"""Train a backbone and its head from scratch, on a CPU."""

from collections.abc import Callable, Iterator, Sequence

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
"""Lowest and highest number of steps; in between, each photo is in `EPOCHS` batches on average."""
EPOCHS = 20

_SETTLING_STEPS = 30  # with momentum 0.9, 4 % of the former statistics are left
_RECORDED_STEPS = 10
_MAX_GAIN = 0.2  # of contrast and of brightness, in units of half the value range


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
    record: Callable[[int, float], None] | None = None,
) -> tuple[keras.Model, Head]:
    """Train a network and a linear head end to end, with Adam and a cosine schedule.

    Photos are sampled into batches by weight, at least half of each batch from human labels, and flipped
    (where the backbone allows it), cropped and lit at random.

    Args:
        backbone: what to train.
        examples: N photos; each batch decodes its own, so that memory does not grow with N.
        labels: `[N]`, in [0, classes).
        weights: `[N]`, those of human labels at least half of the sum.
        classes: K.
        seed: of the initial weights, the batches and the augmentation. Also seeds the global generators of
            Keras, NumPy and Python, which Keras' initialisers use.
        progress: advances by steps.
        team: workers that each compute a part of each batch.
        record: receives the step and this worker's mean loss of the last steps, every ten steps.

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
        optimizer.build(trained.trainable_variables)  # creates its variables now, inside the scope
    part = team.part(BATCH_PHOTOS)

    def train_step(encoded: tf.Tensor, truth: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        images = preprocess(backbone, encoded)
        inputs = augmented(images, draw, part, BATCH_PHOTOS, backbone)
        with tf.GradientTape() as tape:
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, trained(inputs, training=True))
            loss = tf.reduce_sum(loss) / BATCH_PHOTOS  # of the whole batch, not of this worker's part
        gradients = tape.gradient(loss, trained.trainable_variables)
        # The optimizer sums the gradients of all workers; the loss is already divided by the whole batch.
        optimizer.apply(gradients, trained.trainable_variables)
        return loss * team.count  # about the mean over the batch, of this worker's part

    def update_statistics(encoded: tf.Tensor) -> None:
        network(preprocess(backbone, encoded), training=True)  # updates the moving averages alone

    run_train_step = tf.function(lambda *batch: team.strategy.run(train_step, batch))
    run_update_statistics = tf.function(lambda *batch: team.strategy.run(update_statistics, batch))
    # After the training, batch normalisation gathers its statistics again on plain photos with the final
    # weights: those from during the training lag behind, and short trainings answered at random.
    progress.start("train from scratch", steps + _SETTLING_STEPS)
    human = np.array([example.human for example in examples])
    losses: list[float] = []
    for number, batch in enumerate(_batches(human, weights, steps + _SETTLING_STEPS, seed)):
        mine = batch[part]  # the batches are equal in all workers: they have the same seed
        photos = [examples[position] for position in mine]
        encoded = tf.constant([photo.image for photo in photos])
        try:
            with team.waiting():
                if number < steps:
                    loss = run_train_step(encoded, tf.constant(labels[mine]), tf.constant([seed, number]))
                    losses.append(float(team.strategy.experimental_local_results(loss)[0]))
                else:
                    run_update_statistics(encoded)
        except tf.errors.InvalidArgumentError as error:
            raise undecodable(error, photos, backbone) from error
        progress.advance()
        if len(losses) == _RECORDED_STEPS:
            if record is not None:
                record(number + 1, float(np.mean(losses)))
            losses.clear()
    kernel, bias = (np.asarray(array, np.float64) for array in dense.get_weights())
    # A copy outside of the strategy: its variables can be saved and run by this process alone.
    exported = backbone.build()
    exported.set_weights(network.get_weights())
    return exported, Head(kernel=kernel, bias=bias)


def step_count(photos: int) -> int:
    """Return the number of steps of a training."""
    fewest, most = STEPS
    return max(fewest, min(most, photos * EPOCHS // BATCH_PHOTOS))


def augmented(images: tf.Tensor, draw: tf.Tensor, part: slice, whole: int, backbone: Backbone) -> tf.Tensor:
    """Flip, crop and light images at random.

    Args:
        images: float32 `[N, H, W, 3]`, normalised.
        draw: int64 `[2]`, the random seed; the same draw gives the same images.
        part: which N images of the batch these are; the result does not depend on the split between workers.
        whole: number of images in the batch.
        backbone: decides whether half of them are flipped, and how much is cropped at most.
    """
    # Random numbers for the whole batch, then this part: independent of the split between workers.
    seeds = tf.random.split(tf.cast(draw, tf.int32), 4)
    extent = tf.random.stateless_uniform([whole, 2], seeds[0], backbone.min_crop, 1.0)[part]
    corner = tf.random.stateless_uniform([whole, 2], seeds[1])[part] * (1.0 - extent)
    boxes = tf.concat([corner, corner + extent], axis=1)
    if backbone.mirrored:
        flipped = tf.random.stateless_uniform([whole, 1], seeds[2])[part] < 0.5  # noqa: PLR2004  # one in two
        # Swapping the left and right edge of a box flips the crop.
        boxes = tf.where(flipped, tf.gather(boxes, [0, 3, 2, 1], axis=1), boxes)
    cropped = tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(boxes)[0]), tf.shape(images)[1:3])
    light = tf.random.stateless_uniform([2, whole, 1, 1, 1], seeds[3], -_MAX_GAIN, _MAX_GAIN)[:, part]
    return cropped * (1.0 + light[0]) + light[1]


def _batches(human: Mask, weights: Floats, steps: int, seed: int) -> Iterator[Ints]:
    """Yield batches of positions, sampled by weight, with the human labels' share in each batch."""
    generator = np.random.default_rng(seed)
    human_share = float(weights[human].sum() / weights.sum())

    def draw(of: Mask, count: int) -> Ints:
        if count == 0:  # `choice` refuses an empty population
            return np.zeros(0, np.int64)
        return generator.choice(np.flatnonzero(of), count, p=weights[of] / weights[of].sum())

    for _ in range(steps):
        # Rounded up or down at random, so that the share is right on average.
        rounded = int(BATCH_PHOTOS * human_share + generator.random())
        count = max(rounded, -(-BATCH_PHOTOS // 2))
        yield np.concatenate([draw(human, count), draw(~human, BATCH_PHOTOS - count)])
