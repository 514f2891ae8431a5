"""Heads of groups of devices: the file in a bundle, and how a head changes the answer to a photo. No I/O.

All groups share the network and its head. What a group's head adds to the logits is affine in the embedding,
so the edge computes it from the two outputs that the model server gives for each photo. Training, gate and
edge read the same rounded numbers, and no server has to know of groups.
"""

import math
import struct
from array import array
from collections.abc import Mapping, Sequence
from functools import cached_property
from operator import mul
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.errors import DECODE_ERRORS, PermanentError
from schemas.field_types import Group, Label

HEADS_FILE = Path("assets.extra", "heads.msgpack")
"""Where a bundle has it; a model server ignores it."""
MAX_HEADS = 256
MAX_FILE_BYTES = 16 * 2**20
"""Of a file; bounds the memory of an edge, which keeps the heads of the groups that it answers for."""
FORMAT = 1
MIN_PROBABILITY = 1e-30
"""Smaller ones count as this much: 0 has no logarithm."""

_LARGEST = 2.0**15
"""Of the numbers in a kernel: float16 ends at 65504, and loses digits of small ones."""

_HEAD_BYTES = 10_240
"""Most bytes of a head without its kernel: of 1024 classes, with a share of the names."""

_Finite = Annotated[float, Meta(ge=-1e30, le=1e30)]  # refuses NaN too


class GroupHeadsError(PermanentError):
    """The file is not one of heads, or they do not fit the model."""


class GroupHead(Struct, frozen=True, dict=True):  # dict: for cached properties
    """The logits that one head adds to those of the shared one.

    The scores are `softmax((log p + kernel @ embedding + bias) / temperature)`, with the probabilities p and
    the embedding that the model gives.

    Args:
        kernel: K rows of D numbers, float16, little endian, to be multiplied by `scale`.
        scale: above 0; keeps the numbers of `kernel` in the range of float16.
        bias: K numbers.
        temperature: divides the sum.
    """

    kernel: bytes
    scale: Annotated[float, Meta(gt=0, le=1e30)]
    bias: list[_Finite]
    temperature: Annotated[float, Meta(ge=0.01, le=100)] = 1.0

    @cached_property
    def rows(self) -> "list[array[float]]":
        """The kernel by class, scaled."""
        width = len(self.kernel) // 2 // len(self.bias)
        scaled = array("f", (value * self.scale for value in self._values()))
        return [scaled[start : start + width] for start in range(0, len(scaled), width)]

    @property
    def finite(self) -> bool:
        """Whether each number of the kernel is one."""
        return all(map(math.isfinite, self._values()))

    def _values(self) -> tuple[float, ...]:
        return struct.unpack(f"<{len(self.kernel) // 2}e", self.kernel)

    def scores(self, probabilities: Sequence[float], embedding: Sequence[float]) -> list[float]:
        """Return the probabilities of a photo of the group; NaN stays NaN.

        Args:
            probabilities: By the shared head, K.
            embedding: D numbers.
        """
        logits = [
            (math.log(max(probability, MIN_PROBABILITY)) + bias + sum(map(mul, row, embedding)))
            / self.temperature
            for probability, bias, row in zip(probabilities, self.bias, self.rows, strict=True)
        ]
        highest = max(logits)
        exponentials = [math.exp(value - highest) for value in logits]
        total = sum(exponentials)
        return [value / total for value in exponentials]


class GroupHeads(Struct, frozen=True, kw_only=True):
    """The heads of one version.

    Args:
        classes: K names, in the order of the model's outputs.
        dim: D, length of the embeddings.
        heads: each at most once, however many groups it is of.
        groups: position in `heads` by group.
        format: of the file.
    """

    classes: Annotated[list[Label], Meta(min_length=2, max_length=1024)]
    dim: Annotated[int, Meta(ge=1, le=16384)]
    heads: Annotated[list[GroupHead], Meta(max_length=MAX_HEADS)]
    groups: Annotated[dict[Group, Annotated[int, Meta(ge=0)]], Meta(max_length=1024)]
    format: int = FORMAT

    @property
    def by_group(self) -> dict[str, GroupHead]:
        """Head by group."""
        return {group: self.heads[position] for group, position in self.groups.items()}

    def of(self, group: str) -> GroupHead | None:
        """Return the head of a group, None if the shared head answers for it."""
        position = self.groups.get(group)
        return None if position is None else self.heads[position]


def pack_kernel(rows: Sequence[Sequence[float]]) -> tuple[bytes, float]:
    """Return the bytes and the scale of a kernel, by class and by component."""
    largest = max((abs(value) for row in rows for value in row), default=0.0)
    scale = largest / _LARGEST or 1.0
    values = [value / scale for row in rows for value in row]
    return struct.pack(f"<{len(values)}e", *values), scale


def encode_heads(heads: GroupHeads) -> bytes:
    """Encode the file; equal heads give equal bytes."""
    ordered = msgspec.structs.replace(heads, groups=dict(sorted(heads.groups.items())))
    return msgspec.msgpack.encode(ordered)


def decode_heads(content: bytes) -> GroupHeads:
    """Decode the file.

    Raises:
        GroupHeadsError: It is damaged, or of a later format.
    """
    try:
        heads = msgspec.msgpack.decode(content, type=GroupHeads)
    except DECODE_ERRORS as error:
        raise GroupHeadsError(f"no valid heads of groups: {error}") from None
    if heads.format > FORMAT:
        raise GroupHeadsError(
            f"heads of groups of format {heads.format}, and this version reads formats up to {FORMAT}",
            hint="install a newer version of Gleaner on this machine",
        )
    classes = len(heads.classes)
    for head in heads.heads:
        if len(head.bias) != classes or len(head.kernel) != 2 * classes * heads.dim:
            raise GroupHeadsError(
                "head of a group",
                expected=f"{classes} rows of {heads.dim} numbers",
                got=f"{len(head.kernel)} bytes and {len(head.bias)} biases",
            )
        if not head.finite:
            raise GroupHeadsError("head of a group", expected="finite numbers", got="infinite ones or NaN")
    if any(position >= len(heads.heads) for position in heads.groups.values()):
        raise GroupHeadsError("a group names a head that the file does not have")
    return heads


def read_heads(directory: Path) -> GroupHeads | None:
    """Read the heads of a version; None if it has none. Blocking.

    Raises:
        GroupHeadsError: The file is damaged, of a later format, or too large.
        OSError: It cannot be read.
    """
    file = directory / HEADS_FILE
    if not file.is_file():
        return None
    if (size := file.stat().st_size) > MAX_FILE_BYTES:
        raise GroupHeadsError("heads of groups", expected=f"at most {MAX_FILE_BYTES} bytes", got=size)
    return decode_heads(file.read_bytes())


def most_heads(classes: int, dim: int) -> int:
    """Return how many heads a file may have.

    Args:
        classes: K.
        dim: D.
    """
    return min(MAX_HEADS, MAX_FILE_BYTES // (2 * classes * dim + _HEAD_BYTES))


def group_heads(classes: Sequence[str], dim: int, by_group: Mapping[str, GroupHead]) -> GroupHeads:
    """Return the heads of a version, each once."""
    heads = list(dict.fromkeys(map(_Key, by_group.values())))
    position = {key: number for number, key in enumerate(heads)}
    return GroupHeads(
        classes=list(classes),
        dim=dim,
        heads=[key.head for key in heads],
        groups={group: position[_Key(head)] for group, head in by_group.items()},
    )


class _Key:
    """A head that is equal to heads with the same numbers."""

    def __init__(self, head: GroupHead) -> None:
        self.head = head
        self._bytes = msgspec.msgpack.encode(head)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other._bytes == self._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)
