"""The parts of a bundle by their content, with which an edge node fetches only what it lacks."""

from schemas.parts.part_list import (
    DIGEST_BYTES,
    MAX_PART_BYTES,
    SUFFIX,
    Part,
    PartList,
    PartsError,
    decode_part_list,
    encode_part_list,
    part_digest,
)

__all__ = [
    "DIGEST_BYTES",
    "MAX_PART_BYTES",
    "SUFFIX",
    "Part",
    "PartList",
    "PartsError",
    "decode_part_list",
    "encode_part_list",
    "part_digest",
]
