"""A foreign function on one tensor as a network from pixels to logits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cloud.modeling.adopted.class_scores import Scores, tell_scores, to_logits
from cloud.modeling.adopted.preprocessing import AdoptionError, Preprocessing, first_line
from cloud.modeling.decoding import CHANNELS

ENCODED_SIDE_PX = 320
"""Side in pixels of the pictures for a model that decodes them, unless a size was given."""
_IMAGE_RANK = 3
_CHANNEL_COUNTS = (1, CHANNELS)
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Input:
    """The input of a foreign model.

    Attributes:
        name: of the tensor.
        dtype: string for encoded photos, else a number type.
        batched: whether a call takes any number of photos; else one.
        squeezed: whether its tensor has no dimension for the batch.
        channels_first: whether the channels come before rows and columns.
        size_px: height and width, each None if any is accepted.
        channels: None if any number is accepted.
    """

    name: str
    dtype: tf.DType
    batched: bool = True
    squeezed: bool = False
    channels_first: bool = False
    size_px: tuple[int | None, int | None] = (None, None)
    channels: int | None = None

    @property
    def encoded(self) -> bool:
        """Whether the model takes encoded photos and decodes them."""
        return bool(self.dtype == tf.string)


@dataclass(frozen=True, slots=True)
class Reference:
    """The program that a translated model was made for, to compare with.

    Attributes:
        run: from the foreign input to the scores `[N, W]`.
        program: its name, for messages.
        tolerance: largest difference of a probability.
        scores: what it gives; None if the same as the network.
    """

    run: Callable[[NDArray[Any]], NDArray[np.float32]]
    program: str
    tolerance: float
    scores: Scores | None = None


def only_input(path: Path, inputs: Mapping[str, _Found]) -> tuple[str, _Found]:
    """Return name and description of a model's only input.

    Raises:
        AdoptionError: it has another number of inputs than one.
    """
    if len(inputs) != 1:
        names = ", ".join(sorted(inputs)) or "none"
        raise AdoptionError(f"{path} takes the inputs {names}", hint="a model takes one: the photos")
    [found] = inputs.items()
    return found


def read_input(name: str, shape: Sequence[int | None] | None, dtype: tf.DType) -> Input:
    """Understand the input of a model.

    Args:
        name: of the tensor.
        shape: with the batch; None if unknown.
        dtype: of the tensor.

    Raises:
        AdoptionError: it takes neither pixels nor encoded photos.
    """
    shown = "of unknown shape" if shape is None else str(list(shape)).replace("None", "?")
    what = f"input {name!r} is {dtype.name} {shown}"
    rank = None if shape is None else len(shape)
    if dtype == tf.string:
        if shape is None or rank not in {0, 1}:
            raise AdoptionError(what, hint="encoded photos are taken as a string tensor [N] or one string")
        return Input(name, dtype, batched=rank == 1 and shape[0] is None, squeezed=rank == 0)
    if not (dtype.is_floating or dtype.is_integer):
        raise AdoptionError(what, hint="photos are taken as numbers or as encoded strings")
    if shape is None or rank not in {_IMAGE_RANK, _IMAGE_RANK + 1}:
        raise AdoptionError(
            what, hint="pixels are taken as [N, height, width, channels] or [N, channels, height, width]"
        )
    batch, *image = shape if rank == _IMAGE_RANK + 1 else (1, *shape)
    first = image[0] in _CHANNEL_COUNTS and image[2] not in _CHANNEL_COUNTS
    channels, size = (image[0], image[1:]) if first else (image[2], image[:2])
    if batch not in {None, 1} or channels not in {None, *_CHANNEL_COUNTS}:
        raise AdoptionError(
            what, hint="a batch has any size or 1, and a photo 3 channels, or 1 if it is grey"
        )
    squeezed = rank == _IMAGE_RANK
    return Input(name, dtype, batch is None, squeezed, first, (size[0], size[1]), channels)


def complete(source: Input, given: Preprocessing | None) -> Preprocessing:
    """Return the preprocessing with size and order of the input.

    Raises:
        AdoptionError: it is not given and cannot be known, or contradicts the input.
    """
    if given is None:
        if source.dtype.is_floating:
            raise AdoptionError(
                f"input {source.name!r} takes {source.dtype.name} pixels, and their range is not in the file",
                hint="name it with --preprocessing raw (0 to 255), unit (0 to 1), signed (-1 to 1), "
                "imagenet or caffe; raw if the model has a Rescaling layer",
            )
        given = Preprocessing()
    elif (source.encoded or source.dtype.is_integer) and not _is_of_integers(given, source.dtype):
        takes = "encoded photos" if source.encoded else f"{source.dtype.name} pixels"
        raise AdoptionError(
            f"input {source.name!r} takes {takes}, which have no other range than 0 to 255",
            hint="leave out --preprocessing, or use raw",
        )
    wanted = given.size_px or (ENCODED_SIDE_PX, ENCODED_SIDE_PX) if source.encoded else given.size_px
    height, width = (
        fixed if fixed is not None else wanted and wanted[side] for side, fixed in enumerate(source.size_px)
    )
    if height is None or width is None:
        raise AdoptionError(
            f"input {source.name!r} takes photos of any size",
            hint="name one in --preprocessing, such as unit,size=224",
        )
    if wanted is not None and wanted != (height, width):
        raise AdoptionError(
            f"input {source.name!r}", expected=f"size={width}x{height}", got=f"{wanted[1]}x{wanted[0]}"
        )
    order = given.order
    if source.channels == 1:
        order = "gray"
    elif source.channels == CHANNELS and order == "gray":
        raise AdoptionError(f"input {source.name!r} has 3 channels", hint="use order=rgb or order=bgr")
    if len(given.offset) > 1 and order == "gray":
        raise AdoptionError(f"input {source.name!r} has 1 channel", hint="give one offset and one scale")
    return Preprocessing(given.offset, given.scale, order, (height, width))


def _is_of_integers(given: Preprocessing, dtype: tf.DType) -> bool:
    """Return whether a preprocessing leaves whole pixels; those of signed types may be moved by an offset."""
    is_moved = given.offset != (0.0,) and (dtype == tf.string or dtype.is_unsigned)
    return given.scale == (1.0,) and not is_moved


def _rows(values: tf.Tensor) -> tf.Tensor:
    """Return scores as rows `[N, W]`; a model of two classes may give one number per photo `[N]`."""
    return values[:, tf.newaxis] if values.shape.rank == 1 else values


class AdoptedNetwork(tf.Module):  # type: ignore[misc] # TensorFlow ships no types
    """A network from pixels to logits, with what training and export use of a Keras model.

    Args:
        call: from the foreign input to the scores `[N, W]` of the chosen output.
        source: the foreign input.
        preprocessing: complete, with a size.
        resources: what `call` uses: variables, tables, a loaded SavedModel; saved with the network.
        identity: digest of all that decides the outputs, 16 bytes.
        scores: what the model gives; None to infer it from its outputs for `samples`.
        samples: pixels float32 `[n, S, S, 3]` in 0 to 255 of ordinary photos.
        classes: K.
        reference: what its outputs for `samples` are compared with; None if it is the model itself.

    Attributes:
        input_shape: `(None, S, S, 3)`: square, float32 in 0 to 255.

    Raises:
        AdoptionError: the model cannot be run on the samples, or its outputs are not scores.
    """

    def __init__(
        self,
        call: Callable[[tf.Tensor], tf.Tensor],
        source: Input,
        preprocessing: Preprocessing,
        *,
        resources: Sequence[Any],
        identity: bytes,
        scores: Scores | None,
        samples: Callable[[int], tf.Tensor],
        classes: int,
        reference: Reference | None = None,
    ) -> None:
        super().__init__(name="adopted")
        self.resources = list(resources)
        self._call, self._source, self._preprocessing = call, source, preprocessing
        self._identity = identity
        assert preprocessing.size_px is not None, "the preprocessing is complete"
        side = max(preprocessing.size_px)
        self.input_shape = (None, side, side, CHANNELS)
        self._width: int | None = None
        pixels = samples(side)
        try:
            values = self._scores(pixels).numpy()
        except (tf.errors.OpError, ValueError, TypeError, RuntimeError) as error:
            reason = first_line(error)
            raise AdoptionError(f"the model cannot be run on a photo: {reason}") from None
        told = tell_scores(np.asarray(values, np.float64), classes) if scores is None else scores
        self.scores: Scores = told
        self._width = values.shape[1]
        if reference is not None:
            self._compare(values, pixels, reference)

    def __call__(self, images: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """Return the logits `[N, K]` of pixels `[N, S, S, 3]`."""
        del training  # the weights are frozen
        return to_logits(self._scores(images), self.scores)

    def get_weights(self) -> list[NDArray[np.uint8]]:
        """Return the digest of the model: another model or preprocessing has another one."""
        return [np.frombuffer(self._identity, np.uint8)]

    def _compare(self, values: NDArray[np.float32], pixels: tf.Tensor, reference: Reference) -> None:
        try:
            theirs = reference.run(self._foreign_input(pixels).numpy())
            theirs = theirs[:, np.newaxis] if theirs.ndim == 1 else theirs
        except (ValueError, RuntimeError, TypeError, IndexError, KeyError, NotImplementedError) as error:
            reason = first_line(error)
            raise AdoptionError(f"{reference.program} cannot run the model on a photo: {reason}") from None
        kind = reference.scores or self.scores
        ours, expected = (
            tf.nn.softmax(to_logits(tf.constant(scores, tf.float32), told)).numpy()
            for scores, told in ((values, self.scores), (theirs, kind))
        )
        difference = float(np.abs(ours - expected).max())
        if not difference <= reference.tolerance:  # also refuses NaN
            raise AdoptionError(
                f"the model in TensorFlow gives probabilities that differ by {difference:.2g} from those of "
                f"{reference.program}",
                hint="adopt the model that the file was converted from",
            )

    def _scores(self, images: tf.Tensor) -> tf.Tensor:
        source = self._source
        inputs = self._foreign_input(images)
        if source.batched:
            return tf.ensure_shape(_rows(tf.cast(self._call(inputs), tf.float32)), [None, self._width])

        def one(row: tf.Tensor) -> tf.Tensor:
            alone = row if source.squeezed else row[tf.newaxis]
            return tf.reshape(tf.cast(self._call(alone), tf.float32), [-1])

        return tf.map_fn(one, inputs, fn_output_signature=tf.TensorSpec([self._width], tf.float32))

    def _foreign_input(self, images: tf.Tensor) -> tf.Tensor:
        source, size = self._source, self._preprocessing.size_px
        if tuple(images.shape[1:3]) != size:  # a second pass for inputs that are not square
            images = tf.image.resize(images, size, method="bilinear")
        if source.encoded:
            # Our decoder first: orientation, transparency and 16 bits are the same for every model.
            pixels = tf.cast(tf.clip_by_value(tf.round(images), 0.0, 255.0), tf.uint8)
            return tf.map_fn(tf.io.encode_png, pixels, fn_output_signature=tf.string)
        inputs = self._preprocessing.apply(images)
        if source.dtype.is_integer:
            limits = source.dtype.limits
            inputs = tf.clip_by_value(tf.round(inputs), float(limits[0]), float(min(limits[1], 2**24)))
        inputs = tf.cast(inputs, source.dtype)
        return tf.transpose(inputs, [0, 3, 1, 2]) if source.channels_first else inputs
