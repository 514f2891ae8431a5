"""Read and validate the MonitoringConfig file."""

from google.protobuf import descriptor_pb2

from edge.modelserver import proto_text
from edge.modelserver.status import Code, ServingError

DEFAULT_PATH = "/monitoring/prometheus/metrics"

_Field = descriptor_pb2.FieldDescriptorProto


def _message_class() -> type:
    """Build the message class, which tensorflow-serving-api does not ship."""
    file = descriptor_pb2.FileDescriptorProto(
        name="gleaner/monitoring_config.proto", package=proto_text.PACKAGE, syntax="proto3"
    )
    prometheus = file.message_type.add(name="PrometheusConfig")
    for number, (name, kind) in enumerate((("enable", _Field.TYPE_BOOL), ("path", _Field.TYPE_STRING)), 1):
        prometheus.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL, type=kind)
    file.message_type.add(name="MonitoringConfig").field.add(
        name="prometheus_config",
        number=1,
        label=_Field.LABEL_OPTIONAL,
        type=_Field.TYPE_MESSAGE,
        type_name=f".{proto_text.PACKAGE}.PrometheusConfig",
    )
    return proto_text.message_class(file, "MonitoringConfig")


def parse(text: str) -> str | None:
    """Read a MonitoringConfig in protobuf text format.

    Returns:
        The path of the metrics; None if they are not enabled.

    Raises:
        ServingError: INVALID_ARGUMENT if the text or the path is invalid.
    """
    message = _message_class()()
    proto_text.read(text, message)
    if not message.prometheus_config.enable:
        return None
    path: str = message.prometheus_config.path or DEFAULT_PATH
    if not path.startswith("/") or not path.isascii() or " " in path:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"path must begin with / and have ASCII characters without spaces; was {path}",
        )
    return path
