"""Decode photos inside a TensorFlow graph, to the same pixels as `schemas.pixels` within one level of 255.

The graph is called directly too, by clients of any model server, so it reads the orientation itself. It looks
where cameras write it, and where the normal form of `schemas.image` has it: in the first segment of a JPEG or
in the one after APP0, in the chunk behind the header of a PNG.
"""

import tensorflow as tf

from schemas.image.exif import EXIF_HEADER, HEAD_BYTES, MAX_ENTRIES, TIFF_MAGIC, UPRIGHT
from schemas.image.jpeg import MAX_APP0_BYTES
from schemas.image.png import EXIF_AT
from schemas.image.signatures import JPEG_SIGNATURE, PNG_SIGNATURE
from schemas.pixels import BACKGROUND

CHANNELS = 3  # RGB; grey and alpha are converted

_HEAD_BYTES = MAX_APP0_BYTES + 2**16 + 64
_DEPTH_AT = 24
_APP0, _APP1 = 0xFFE0, 0xFFE1
_LARGEST = 8
_ORIENTATION, _SHORT = 0x0112, 3
_TRANSPOSED, _MIRRORED, _UPSIDE_DOWN = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)
_ENTRY_BYTES = 12


def decode_stored(photo: tf.Tensor) -> tf.Tensor:
    """Decode a JPEG or PNG as it is stored, not turned.

    Args:
        photo: string, scalar.

    Returns:
        uint8 `[h, w, 3]`. At run time, raises `tf.errors.InvalidArgumentError` if it cannot be decoded.
    """
    image = tf.cond(
        _starts_with(photo, PNG_SIGNATURE), lambda: _decode_png(photo), lambda: _decode_jpeg(photo)
    )
    image.set_shape([None, None, CHANNELS])
    return image


def _decode_jpeg(photo: tf.Tensor) -> tf.Tensor:
    # The operation reads GIF and BMP too, whose sizes nobody has checked: it gets bytes of no format instead.
    jpeg = tf.where(_starts_with(photo, JPEG_SIGNATURE), photo, b"no JPEG")
    # With these options, TensorFlow's pixels are Pillow's.
    return tf.io.decode_jpeg(jpeg, channels=CHANNELS, dct_method="INTEGER_ACCURATE", fancy_upscaling=True)


def _decode_png(photo: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_png(photo, channels=CHANNELS + 1)
    colours, alpha = image[..., :CHANNELS], image[..., CHANNELS:]
    # What TensorFlow fills in for files without alpha: see `schemas.image.png.opaque_filler`.
    depth = tf.io.decode_raw(tf.strings.substr(photo, _DEPTH_AT, 1), tf.uint8)
    filler = tf.bitwise.left_shift(tf.cast(1, tf.int32), tf.minimum(tf.cast(depth[0], tf.int32), 8)) - 1
    # Nearly all files are opaque, and the arithmetic needs six times the memory of the image.
    opaque = tf.reduce_all(alpha == tf.cast(filler, tf.uint8))
    return tf.cond(opaque, lambda: colours, lambda: _compose(colours, alpha))


def _compose(colours: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    wide = tf.cast(alpha, tf.uint16)
    blended = tf.cast(colours, tf.uint16) * wide + BACKGROUND * (255 - wide) + 128
    shift = tf.cast(8, tf.uint16)
    # Division by 255, rounded, as in Pillow.
    rounded = tf.bitwise.right_shift(blended + tf.bitwise.right_shift(blended, shift), shift)
    return tf.cast(rounded, tf.uint8)


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn `[h, w, c]` by an EXIF orientation."""

    def turned() -> tf.Tensor:
        rows = tf.cond(
            _is_any(orientation, _TRANSPOSED), lambda: tf.transpose(image, [1, 0, 2]), lambda: image
        )
        mirrored = tf.cond(_is_any(orientation, _MIRRORED), lambda: rows[:, ::-1], lambda: rows)
        return tf.cond(_is_any(orientation, _UPSIDE_DOWN), lambda: mirrored[::-1], lambda: mirrored)

    return tf.cond(orientation == UPRIGHT, lambda: image, turned)


def read_orientation(photo: tf.Tensor) -> tf.Tensor:
    """Return the EXIF orientation of an encoded photo: int32 scalar, 1 to 8; 1 if there is none."""
    # Zeros behind it, so that reading past the end gives zeros and no error.
    head = tf.io.decode_raw(tf.strings.substr(photo, 0, _HEAD_BYTES), tf.uint8)
    size = tf.cast(tf.size(head), tf.int64)
    head = tf.concat([head, tf.zeros([4], tf.uint8)], 0)
    start, end = tf.cond(
        _starts_with(photo, PNG_SIGNATURE), lambda: _exif_chunk(head, size), lambda: _exif_segment(head, size)
    )
    return tf.cond(start < end, lambda: _orientation(head, start, tf.minimum(end, size)), lambda: 1)


def _exif_segment(head: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    app0 = tf.cast(_number(head, 2, 2, size) == _APP0, tf.int64)
    at = 2 + app0 * (2 + _number(head, 4, 2, size))
    found = _number(head, at, 2, size) == _APP1
    for place, value in enumerate(EXIF_HEADER):
        found &= _number(head, at + 4 + place, 1, size) == value
    end = at + 2 + _number(head, at + 2, 2, size)
    start = at + 4 + len(EXIF_HEADER)
    return start, tf.where(found & (end >= start + HEAD_BYTES), end, 0)


def _exif_chunk(head: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    found = _number(head, EXIF_AT + 4, 4, size) == int.from_bytes(b"eXIf")
    start = tf.constant(EXIF_AT + 8, tf.int64)
    return start, tf.where(found, start + _number(head, EXIF_AT, 4, size), 0)


def _orientation(head: tf.Tensor, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Read EXIF data as `schemas.image.exif.read_orientation` does."""
    order = _number(head, start, 2, end)
    little = order == int.from_bytes(b"II")

    def number(at: tf.Tensor, size: int) -> tf.Tensor:
        return tf.where(little, _number(head, at, size, end, little=True), _number(head, at, size, end))

    directory = start + number(start + 4, 4)
    count = tf.minimum(number(directory, 2), MAX_ENTRIES)
    entries = directory + 2 + _ENTRY_BYTES * tf.range(count)
    entries = tf.boolean_mask(entries, (number(entries, 2) == _ORIENTATION) & (entries + _ENTRY_BYTES <= end))
    values = number(entries + 8, 2)
    valid = (number(entries + 2, 2) == _SHORT) & (number(entries + 4, 4) == 1)
    valid &= (values >= UPRIGHT) & (values <= _LARGEST)
    valid &= (little | (order == int.from_bytes(b"MM"))) & (number(start + 2, 2) == TIFF_MAGIC)
    # The first that is valid; 1 if none is.
    return tf.cast(tf.concat([tf.boolean_mask(values, valid), [UPRIGHT]], 0)[0], tf.int32)


def _number(head: tf.Tensor, at: tf.Tensor, size: int, end: tf.Tensor, *, little: bool = False) -> tf.Tensor:
    """Read unsigned numbers of some bytes at positions; bytes at `end` and behind are zeros."""
    at = tf.cast(at, tf.int64)
    last = tf.cast(tf.size(head), tf.int64) - 1
    total = tf.zeros_like(at)
    for place in range(size):
        position = at + place
        byte = tf.gather(head, tf.clip_by_value(position, 0, last))
        value = tf.where(position < end, tf.cast(byte, tf.int64), 0)
        total += value * 256 ** (place if little else size - 1 - place)
    return total


def _starts_with(photo: tf.Tensor, signature: bytes) -> tf.Tensor:
    return tf.strings.substr(photo, 0, len(signature)) == signature


def _is_any(orientation: tf.Tensor, values: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(orientation == tf.constant(values))
