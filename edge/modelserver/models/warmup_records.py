"""Read the warm-up records of a version: a TFRecord file of PredictionLog messages."""

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from edge.modelserver.models.tfrecord import records
from edge.modelserver.status import Code, ServingError
from edge.serving import messages_pb2 as messages

RECORDS_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000


def warmup_logs(path: Path) -> Iterator[messages.PredictionLog]:
    """Yield the records of a version, none if it has no file.

    Args:
        path: its directory.

    Raises:
        ServingError: a record cannot be read, or there are more than `MAX_RECORDS`.
    """
    file = path / RECORDS_FILE
    if not file.exists():
        return
    try:
        for number, record in enumerate(records(file)):
            _check_count(number + 1, file)
            yield _parsed(record, file)
    except ServingError as error:
        if error.code is Code.DATA_LOSS:
            # TensorFlow Serving's hint: the reader's own message does not name the file.
            hint = ". Please verify your warmup data is in TFRecord format."
            raise ServingError(error.code, error.message + hint) from error
        raise


def warmup_photos(path: Path, count: int) -> list[bytes]:
    """Return the first strings in the inputs of Predict records, at most `count`.

    Raises:
        ServingError: as for `warmup_logs`.
    """
    photos: list[bytes] = []
    for log in warmup_logs(path):
        for value in log.predict_log.request.inputs.values():
            photos.extend(value.string_val)
        if len(photos) >= count:
            break
    return photos[:count]


def _check_count(count: int, file: Path) -> None:
    if count > MAX_RECORDS:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}",
        )


def _parsed(record: bytes, file: Path) -> messages.PredictionLog:
    try:
        return messages.PredictionLog.FromString(record)
    except DecodeError as error:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"Failed to parse warmup record: {record[:64]!r} from {file}"
        ) from error
