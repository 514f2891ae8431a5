"""Read one picture of an import: check it, scale or convert it, and name its class."""

from typing import NamedTuple

from bus.mqtt.presence import now_ms
from cloud.dataset.fingerprint import Fingerprint, fingerprint
from cloud.dataset.image_check import fit_image
from cloud.dataset.importing.entry import Item
from cloud.dataset.importing.import_result import ImportOptions
from cloud.dataset.schema import Row
from schemas.class_names import class_name
from schemas.codec import content_id
from schemas.errors import PermanentError
from schemas.pixels import SOURCE_LIMITS

MAX_IMAGE_BYTES = 2 * 1024 * 1024
MAX_PIXELS = SOURCE_LIMITS.max_pixels
MAX_FILE_BYTES = SOURCE_LIMITS.max_bytes


class Read(NamedTuple):
    """A picture that was read: its row, and its fingerprint."""

    name: str
    row: Row
    fingerprint: Fingerprint


def read_item(item: Item, options: ImportOptions) -> Read:
    """Read and check a picture; the digest of the file's content is its id.

    A picture of more than 2 MiB or 16 megapixels is scaled down, and another format converted.

    Raises:
        PermanentError: It cannot be read as a picture, is damaged or too large, or has no class name.
        OSError: The file cannot be read.
    """
    subject = f"file {item.name}"
    if item.label is None:
        raise PermanentError(f"{subject}: no label")
    label = class_name(item.label)
    if item.size_bytes > MAX_FILE_BYTES:
        expected, got = f"at most {MAX_FILE_BYTES} bytes", f"{item.size_bytes} bytes"
        raise PermanentError(subject, expected=expected, got=got)
    original = item.read()
    image, facts = fit_image(original, MAX_IMAGE_BYTES, MAX_PIXELS, subject)
    seen = fingerprint(image)
    now = now_ms()
    row = Row(
        photo_id=content_id(original),  # so that the same file is found again, also if it was scaled down
        image=image,
        width=facts.width,
        height=facts.height,
        received_at_ms=now,
        dhash=f"{seen.dhash:016x}",
        human_label=label,
        human_by=options.by,
        # A file's date may be that of a camera with a wrong clock.
        human_at_ms=now if item.at_ms is None else min(item.at_ms, now),
        split=item.split or options.split,
        origin="import",
        source=_source_name(item.name),
        imported_label=label,
    )
    return Read(item.name, row, seen)


def _source_name(name: str) -> str:
    """Return a file name as it can be stored: bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()[-1024:]


def try_read(item: Item, options: ImportOptions) -> Read | str:
    """Return a picture, or the reason why it is skipped."""
    try:
        return read_item(item, options)
    except PermanentError as error:
        return str(error)
    except OSError as error:
        return f"file {item.name}: cannot be read: {error.strerror or error}"
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # one picture must not end the import of all others
        return f"file {item.name}: cannot be decoded: {type(error).__name__}: {error}"
