"""Read TFRecord files without TensorFlow.

Source: TensorFlow's `core/lib/io/record_writer.h`: length, its masked CRC-32C, data, its masked CRC-32C.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from edge.modelserver.status import Code, ServingError

MAX_RECORD_BYTES = 1 << 30
"""Largest record that is read; a damaged length must not exhaust the memory."""

_HEADER_BYTES = 12
_FOOTER_BYTES = 4
_MASK_DELTA = 0xA282EAD8


def records(path: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file.

    Raises:
        ServingError: DATA_LOSS if the file is damaged or not a TFRecord file.
    """
    with path.open("rb") as file:
        at = 0
        while header := file.read(_HEADER_BYTES):
            record = _record(file, header, at)
            yield record
            at += _HEADER_BYTES + len(record) + _FOOTER_BYTES


def _record(file: BinaryIO, header: bytes, at: int) -> bytes:
    if len(header) < _HEADER_BYTES:
        raise ServingError(Code.DATA_LOSS, f"truncated record at {at}")
    length, checksum = struct.unpack("<QI", header)
    if _masked_crc(header[:8]) != checksum or length > MAX_RECORD_BYTES:
        raise ServingError(Code.DATA_LOSS, f"corrupted record at {at}")
    data, footer = file.read(length), file.read(_FOOTER_BYTES)
    if len(data) < length or len(footer) < _FOOTER_BYTES:
        raise ServingError(Code.DATA_LOSS, f"truncated record at {at}")
    if _masked_crc(data) != struct.unpack("<I", footer)[0]:
        raise ServingError(Code.DATA_LOSS, f"corrupted record at {at}")
    return data


def _masked_crc(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF
