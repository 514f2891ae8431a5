"""Run the warm-up requests of a version before it serves."""

from pathlib import Path

from edge.modelserver.models.servable import Servable
from edge.modelserver.models.warmup_records import warmup_logs
from edge.modelserver.requests.examples import classify, regress
from edge.modelserver.requests.predict import predict
from edge.modelserver.status import Code, ServingError
from edge.serving import messages_pb2 as messages


def warm_up(servable: Servable, path: Path) -> int:
    """Run the warm-up records of a version, if it has any.

    Args:
        servable: the version, loaded and not yet serving.
        path: its directory.

    Returns:
        The number of records run.

    Raises:
        ServingError: a record cannot be read or fails, or there are too many.
    """
    count = 0
    for log in warmup_logs(path):
        _run(servable, log)
        count += 1
    return count


def _run(servable: Servable, log: messages.PredictionLog) -> None:
    match log.WhichOneof("log_type"):
        case "predict_log":
            predict(servable, log.predict_log.request, Servable.run, None)
        case "classify_log":
            classify(servable, log.classify_log.request, Servable.run, None)
        case "regress_log":
            regress(servable, log.regress_log.request, Servable.run, None)
        case kind:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
