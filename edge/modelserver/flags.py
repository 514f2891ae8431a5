"""Parse the flags of tensorflow_model_server and our own, without loading a runtime."""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, TypeVar, get_args

from edge.modelserver import config
from edge.modelserver.batching import parameters as batching_parameters
from edge.modelserver.batching.parameters import BatchingParameters
from edge.modelserver.config import ModelConfig
from edge.modelserver.monitoring import prometheus_config
from edge.modelserver.status import ServingError

T = TypeVar("T")
RuntimeName = Literal["auto", "tensorflow", "litert"]

_LARGEST_PORT = 65535
_FEWEST_RPC_THREADS = 8  # an image that is slow to decode occupies one until it ends


class FlagError(Exception):
    """The command line is invalid; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Flags:
    """The parsed command line.

    Args:
        host: address to listen on.
        port: port to listen on; 0 for any free port, or for none if there is a socket.
        socket_path: Unix socket to listen on as well; None for none.
        metrics_port: port of the metrics; 0 for none.
        metrics_path: where they are there.
        models: the models to serve.
        poll_wait_s: seconds between scans of the base paths; 0 for a single scan, negative for none.
        batching: batching parameters; None if calls are not batched.
        max_num_load_retries: attempts to load a version after the first one.
        load_retry_interval_s: seconds between the attempts.
        grpc_max_threads: calls answered concurrently.
        intra_op_parallelism: threads of one operation; 0 lets TensorFlow choose.
        inter_op_parallelism: operations that run concurrently; 0 lets TensorFlow choose.
        max_image_pixels: images with more pixels are refused before the graph decodes them.
        max_decoding_bytes: memory of all images that are being decoded; 0 for a default by processors.
        runtime: what runs the versions: `auto`, `tensorflow` or `litert`.
        litert_variant: name of the LiteRT variant to use where a version has it; `auto` for the fastest.
        litert_cache: file of earlier choices of a variant; None for the default.
        prefer_tflite_model: with TensorFlow, run the network in LiteRT if the version includes one.
        enable_model_warmup: run the warm-up records of a version before it serves.
        allow_labels_for_unavailable: allow a new label on a version that is not available yet.
    """

    host: str
    port: int
    socket_path: str | None
    metrics_port: int
    metrics_path: str
    models: tuple[ModelConfig, ...]
    poll_wait_s: float
    batching: BatchingParameters | None
    max_num_load_retries: int
    load_retry_interval_s: float
    grpc_max_threads: int
    intra_op_parallelism: int
    inter_op_parallelism: int
    max_image_pixels: int
    max_decoding_bytes: int
    runtime: RuntimeName
    litert_variant: str
    litert_cache: Path | None
    prefer_tflite_model: bool
    enable_model_warmup: bool
    allow_labels_for_unavailable: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise FlagError(message)


def _switch(text: str) -> bool:
    # The spellings that tensorflow_model_server accepts.
    match text.lower():
        case "true" | "t" | "1":
            return True
        case "false" | "f" | "0":
            return False
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number of seconds, got {text!r}")
    return value


def _at_least(lowest: int, highest: int = 2**63 - 1) -> type[int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"expected {lowest} to {highest}, got {value}")
        return value

    return number  # type: ignore[return-value]  # argparse wants a callable; typeshed takes a type too


def parser() -> _Parser:
    """Return the parser of the flags."""
    made = _Parser(
        prog="gleaner modelserver",
        description="Serve SavedModels over gRPC as tensorflow_model_server does.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_listening(made)
    _add_models(made)
    _add_running(made)
    return made


def _add_listening(parser: _Parser) -> None:
    port = _at_least(0, _LARGEST_PORT)
    parser.add_argument(
        "--port",
        type=port,
        default=8500,
        help="port to listen on; 0: any free port, or none with --grpc_socket_path",
    )
    parser.add_argument(
        "--grpc_socket_path", default="", help="absolute path of a Unix socket to listen on as well"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; not a flag of tensorflow_model_server, which uses 0.0.0.0",
    )
    parser.add_argument(
        "--rest_api_port",
        type=port,
        default=0,
        help="port of the metrics that --monitoring_config_file enables; this server has no REST API",
    )
    parser.add_argument(
        "--monitoring_config_file",
        default="",
        help="MonitoringConfig in text format: serve metrics of requests to Prometheus",
    )
    parser.add_argument(
        "--grpc_max_threads",
        type=_at_least(0, 10_000),
        default=0,
        help="calls answered concurrently; 0: four for each processor",
    )


def _add_models(parser: _Parser) -> None:
    parser.add_argument("--model_name", default="default", help="name of the model")
    parser.add_argument(
        "--model_base_path", default="", help="absolute path of the folder with the version directories"
    )
    parser.add_argument(
        "--model_config_file",
        default="",
        help="ModelServerConfig in text format; replaces model_name and model_base_path",
    )
    parser.add_argument(
        "--file_system_poll_wait_seconds",
        type=_seconds,
        default=1.0,
        help="seconds between scans for new versions; 0: scan once; negative: never",
    )
    parser.add_argument(
        "--max_num_load_retries",
        type=_at_least(0),
        default=5,
        help="attempts to load a version after the first",
    )
    parser.add_argument(
        "--load_retry_interval_micros",
        type=_at_least(0),
        default=60_000_000,
        help="wait between the attempts, in µs",
    )
    parser.add_argument(
        "--num_load_threads",
        type=_at_least(0),
        default=0,
        help="accepted without effect: versions load one at a time",
    )
    _add_switch(
        parser, "--enable_model_warmup", default=True, help="run the warm-up records of a version first"
    )
    _add_switch(
        parser,
        "--allow_version_labels_for_unavailable_models",
        default=False,
        help="allow a new label on a version that is not available yet",
    )


def _add_running(parser: _Parser) -> None:
    _add_switch(parser, "--enable_batching", default=False, help="merge concurrent calls into batches")
    parser.add_argument("--batching_parameters_file", default="", help="BatchingParameters in text format")
    for kind in ("intra", "inter"):
        parser.add_argument(
            f"--tensorflow_{kind}_op_parallelism",
            type=_at_least(0),
            default=0,
            help=f"{kind}-op threads of a session; 0: TensorFlow chooses",
        )
    parser.add_argument(
        "--max_image_pixels",
        type=_at_least(1),
        default=16_000_000,
        help="JPEG and PNG inputs with more pixels are refused; not a flag of tensorflow_model_server",
    )
    parser.add_argument(
        "--max_decoding_bytes",
        type=_at_least(0),
        default=0,
        help="memory of all images that are being decoded; beyond it calls wait, and get RESOURCE_EXHAUSTED "
        "before their deadline; 0: 128 MiB for each processor, and at least the largest image. Not a flag of "
        "tensorflow_model_server",
    )
    _add_switch(
        parser,
        "--prefer_tflite_model",
        default=False,
        help="with the runtime tensorflow: decode in TensorFlow, and run the network in LiteRT",
    )
    parser.add_argument(
        "--runtime",
        choices=get_args(RuntimeName),
        default="auto",
        help="what runs the versions; auto: litert for those with a LiteRT part if it is installed, else "
        "tensorflow. Not a flag of tensorflow_model_server, like the next two",
    )
    parser.add_argument(
        "--litert_variant",
        default="auto",
        help="variant that litert runs, such as float32 or int8; auto: the fastest, measured once",
    )
    parser.add_argument(
        "--litert_cache",
        default="",
        help="file that keeps the choice of a variant; default: litert-variants.json in the user's cache",
    )


def _add_switch(parser: _Parser, name: str, *, default: bool, help: str) -> None:  # noqa: A002 - argparse's word
    parser.add_argument(name, type=_switch, nargs="?", const=True, default=default, help=help)


def parse(argv: Sequence[str] | None) -> Flags:
    """Parse the command line and the files named in it.

    Args:
        argv: arguments without the program name; None for those of this process.

    Raises:
        FlagError: the flags or files are invalid; tensorflow_model_server would not start either.
        SystemExit: with code 0, after `--help`.
    """
    parsed = parser().parse_args(argv)
    metrics_path = _metrics_path(parsed.monitoring_config_file, parsed.rest_api_port)
    return Flags(
        host=parsed.host,
        port=parsed.port,
        socket_path=parsed.grpc_socket_path or None,
        metrics_port=0 if metrics_path is None else parsed.rest_api_port,
        metrics_path=metrics_path or "",
        models=_models(parsed.model_config_file, parsed.model_name, parsed.model_base_path),
        poll_wait_s=parsed.file_system_poll_wait_seconds,
        batching=_batching(parsed.batching_parameters_file, enabled=parsed.enable_batching),
        max_num_load_retries=parsed.max_num_load_retries,
        load_retry_interval_s=parsed.load_retry_interval_micros / 1e6,
        grpc_max_threads=parsed.grpc_max_threads or max(_FEWEST_RPC_THREADS, 4 * (os.cpu_count() or 1)),
        intra_op_parallelism=parsed.tensorflow_intra_op_parallelism,
        inter_op_parallelism=parsed.tensorflow_inter_op_parallelism,
        max_image_pixels=parsed.max_image_pixels,
        max_decoding_bytes=parsed.max_decoding_bytes,
        runtime=parsed.runtime,
        litert_variant=parsed.litert_variant,
        litert_cache=Path(parsed.litert_cache) if parsed.litert_cache else None,
        prefer_tflite_model=parsed.prefer_tflite_model,
        enable_model_warmup=parsed.enable_model_warmup,
        allow_labels_for_unavailable=parsed.allow_version_labels_for_unavailable_models,
    )


def _models(config_file: str, name: str, base_path: str) -> tuple[ModelConfig, ...]:
    if not config_file and not base_path:
        raise FlagError("no model to serve: give --model_base_path or --model_config_file")
    if config_file:
        return _parsed("--model_config_file", config_file, config.parse)
    try:
        config.check_base_path(name, base_path)
    except ServingError as error:
        raise FlagError(f"argument --model_base_path: {error.message}") from error
    return (ModelConfig(name, Path(base_path)),)


def _batching(parameters_file: str, *, enabled: bool) -> BatchingParameters | None:
    if not enabled:
        if parameters_file:
            raise FlagError("argument --batching_parameters_file: has no effect without --enable_batching")
        return None
    if not parameters_file:
        return BatchingParameters()
    return _parsed("--batching_parameters_file", parameters_file, batching_parameters.parse)


def _metrics_path(config_file: str, port: int) -> str | None:
    """Return the path of the metrics, None for none."""
    if not config_file:
        if port:
            # Refused rather than ignored: a client would wait for a port that never opens.
            raise FlagError(
                f"argument --rest_api_port: cannot use port {port}: this server has no REST API, only "
                "metrics with --monitoring_config_file"
            )
        return None
    path = _parsed("--monitoring_config_file", config_file, prometheus_config.parse)
    if path is not None and not port:
        raise FlagError("argument --monitoring_config_file: has no effect without --rest_api_port")
    return path


def _parsed(flag: str, path: str, parse: Callable[[str], T]) -> T:
    """Return the content of a flag's file."""
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise FlagError(f"argument {flag}: cannot read {path}: {reason}") from error
    except ServingError as error:
        raise FlagError(f"argument {flag}: {path}: {error.message}") from error
