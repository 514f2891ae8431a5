"""The monitoring file: what is parsed and what is refused."""

from pathlib import Path

import pytest

from edge.modelserver.flags import FlagError, parse
from edge.modelserver.monitoring import prometheus_config
from edge.modelserver.status import ServingError

MODEL = "--model_base_path=/models/pets"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", None),
        ("prometheus_config {}", None),
        ('prometheus_config { enable: false, path: "/m" }', None),
        ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
        ('prometheus_config: {\n  enable: true,\n  path: "/metrics"\n}', "/metrics"),
    ],
)
def test_metrics_are_served_where_the_file_says(text: str, path: str | None) -> None:
    """Only if they are enabled; without a path at TensorFlow Serving's."""
    assert prometheus_config.parse(text) == path


@pytest.mark.parametrize("text", ["prometheus_config", "other { }", 'prometheus_config { enable: "yes" }'])
def test_an_invalid_file_is_refused(text: str) -> None:
    """Syntax, unknown fields and wrong types."""
    with pytest.raises(ServingError, match="INVALID_ARGUMENT: Invalid protobuf: "):
        prometheus_config.parse(text)


@pytest.mark.parametrize("path", ["metrics", "/a b", "/größe"])
def test_a_path_that_no_request_has_is_refused(path: str) -> None:
    """It begins with / and could stand in a request line."""
    with pytest.raises(ServingError, match="path must begin with /"):
        prometheus_config.parse(f'prometheus_config {{ enable: true path: "{path}" }}')


def test_the_flags_belong_together(tmp_path: Path) -> None:
    """A file without a port, and a port without a file, would leave Prometheus without an answer."""
    file = tmp_path / "monitoring.config"
    file.write_text("prometheus_config { enable: true }")
    flags = parse([MODEL, "--rest_api_port=8501", f"--monitoring_config_file={file}"])
    assert (flags.metrics_port, flags.metrics_path) == (8501, "/monitoring/prometheus/metrics")
    with pytest.raises(FlagError, match="monitoring_config_file: has no effect without --rest_api_port"):
        parse([MODEL, f"--monitoring_config_file={file}"])
    with pytest.raises(FlagError, match="cannot read"):
        parse([MODEL, "--rest_api_port=8501", "--monitoring_config_file=/nowhere"])
    file.write_text("prometheus_config { }")
    assert parse([MODEL, f"--monitoring_config_file={file}"]).metrics_port == 0
