"""Run the warm-up requests of a version before it serves."""

from pathlib import Path

from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from edge.modelserver.examples import classify, regress
from edge.modelserver.predict import predict
from edge.modelserver.servable import Servable, records
from edge.modelserver.status import Code, ServingError

RECORDS_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000


def warm_up(servable: Servable, path: Path) -> int:
    """Run the warm-up records of a version, if it has any.

    Args:
        servable: the version, loaded and not yet serving.
        path: its directory.

    Returns:
        The number of records run.

    Raises:
        ServingError: a record cannot be read or fails, or there are more than `MAX_RECORDS`.
    """
    file = path / RECORDS_FILE
    if not file.exists():
        return 0
    try:
        count = 0
        for record in records(file):
            count += 1
            _check_count(count, file)
            _run(servable, _parsed(record, file))
    except ServingError as error:
        if error.code is Code.DATA_LOSS:
            # TensorFlow Serving's hint: the kernel's own message does not say which file is meant.
            hint = ". Please verify your warmup data is in TFRecord format."
            raise ServingError(error.code, error.message + hint) from error
        raise
    return count


def _check_count(count: int, file: Path) -> None:
    if count > MAX_RECORDS:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}",
        )


def _parsed(record: bytes, file: Path) -> prediction_log_pb2.PredictionLog:
    try:
        return prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError as error:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"Failed to parse warmup record: {record[:64]!r} from {file}"
        ) from error


def _run(servable: Servable, log: prediction_log_pb2.PredictionLog) -> None:
    match log.WhichOneof("log_type"):
        case "predict_log":
            predict(servable, log.predict_log.request, Servable.run, None)
        case "classify_log":
            classify(servable, log.classify_log.request, Servable.run, None)
        case "regress_log":
            regress(servable, log.regress_log.request, Servable.run, None)
        case kind:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
