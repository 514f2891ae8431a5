"""The command line: the flags of tensorflow_model_server, read without loading TensorFlow."""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from edge.modelserver import batching_parameters, config
from edge.modelserver.batching_parameters import BatchingParameters
from edge.modelserver.config import ModelConfig
from edge.modelserver.status import ServingError

_LARGEST_PORT = 65535


class FlagError(Exception):
    """A command line that cannot be used; the text is one line for the person who typed it."""


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line asks for.

    Args:
        host: the address to listen on.
        port: the port to listen on; 0 for any free one.
        models: the models to serve.
        poll_wait_s: seconds between looks at the base paths; 0 for one look, negative for none.
        batching: how calls are merged; None where they are not.
        max_num_load_retries: attempts to load a version after the first one.
        load_retry_interval_s: seconds between the attempts.
        grpc_max_threads: calls answered at the same time.
        intra_op_parallelism: threads of one operation; 0 lets TensorFlow choose.
        inter_op_parallelism: operations that run at the same time; 0 lets TensorFlow choose.
        prefer_tflite_model: run the network of a version in LiteRT where it comes with one.
        enable_model_warmup: run a version's warm-up records before it serves.
        allow_labels_for_unavailable: let a new version label name a version that does not serve yet.
    """

    host: str
    port: int
    models: tuple[ModelConfig, ...]
    poll_wait_s: float
    batching: BatchingParameters | None
    max_num_load_retries: int
    load_retry_interval_s: float
    grpc_max_threads: int
    intra_op_parallelism: int
    inter_op_parallelism: int
    prefer_tflite_model: bool
    enable_model_warmup: bool
    allow_labels_for_unavailable: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise FlagError(message)


def _switch(text: str) -> bool:
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


def _parser() -> _Parser:
    parser = _Parser(
        prog="gleaner modelserver",
        description="Serve SavedModels over gRPC as tensorflow_model_server does.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_listening(parser)
    _add_models(parser)
    _add_running(parser)
    return parser


def _add_listening(parser: _Parser) -> None:
    port = _at_least(0, _LARGEST_PORT)
    parser.add_argument("--port", type=port, default=8500, help="port to listen on; 0: any free port")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; a flag of this server alone (tensorflow_model_server takes 0.0.0.0)",
    )
    parser.add_argument(
        "--rest_api_port", type=port, default=0, help="must be 0: this server offers no REST API"
    )
    parser.add_argument(
        "--grpc_max_threads",
        type=_at_least(1, 10_000),
        default=4 * (os.cpu_count() or 1),
        help="calls answered at the same time",
    )


def _add_models(parser: _Parser) -> None:
    parser.add_argument("--model_name", default="default", help="name of the model")
    parser.add_argument(
        "--model_base_path", default="", help="absolute path that holds the version directories"
    )
    parser.add_argument(
        "--model_config_file",
        default="",
        help="ModelServerConfig in text format; model_name and model_base_path are then ignored",
    )
    parser.add_argument(
        "--file_system_poll_wait_seconds",
        type=_seconds,
        default=1.0,
        help="seconds between looks for new versions; 0: one look; negative: none",
    )
    parser.add_argument(
        "--max_num_load_retries", type=_at_least(0), default=5, help="attempts after the first"
    )
    parser.add_argument(
        "--load_retry_interval_micros",
        type=_at_least(0),
        default=60_000_000,
        help="wait between attempts, in µs",
    )
    parser.add_argument(
        "--num_load_threads", type=_at_least(0), default=0, help="accepted; versions load one after the other"
    )
    _add_switch(parser, "--enable_model_warmup", default=True, help="run the warm-up records of a version")
    _add_switch(
        parser,
        "--allow_version_labels_for_unavailable_models",
        default=False,
        help="let a new version label name a version that does not serve yet",
    )


def _add_running(parser: _Parser) -> None:
    _add_switch(parser, "--enable_batching", default=False, help="merge calls into batches")
    parser.add_argument("--batching_parameters_file", default="", help="BatchingParameters in text format")
    for kind in ("intra", "inter"):
        parser.add_argument(
            f"--tensorflow_{kind}_op_parallelism",
            type=_at_least(0),
            default=0,
            help=f"{kind}-op threads of a session; 0: TensorFlow chooses",
        )
    _add_switch(
        parser,
        "--prefer_tflite_model",
        default=False,
        help="run a version's network in LiteRT where it was trained with `--tflite`",
    )


def _add_switch(parser: _Parser, name: str, *, default: bool, help: str) -> None:  # noqa: A002 - argparse's word
    parser.add_argument(name, type=_switch, nargs="?", const=True, default=default, help=help)


def parse(argv: Sequence[str] | None) -> Flags:
    """Read the command line and the files it names.

    Args:
        argv: the arguments after the program's name; None for those of this process.

    Raises:
        FlagError: for anything that tensorflow_model_server would refuse to start with.
        SystemExit: with 0, after `--help`.
    """
    given = _parser().parse_args(argv)
    if given.rest_api_port:
        raise FlagError(
            f"argument --rest_api_port: expected 0, got {given.rest_api_port}: this server offers no REST API"
        )
    return Flags(
        host=given.host,
        port=given.port,
        models=_models(given.model_config_file, given.model_name, given.model_base_path),
        poll_wait_s=given.file_system_poll_wait_seconds,
        batching=_batching(given.batching_parameters_file, enabled=given.enable_batching),
        max_num_load_retries=given.max_num_load_retries,
        load_retry_interval_s=given.load_retry_interval_micros / 1e6,
        grpc_max_threads=given.grpc_max_threads,
        intra_op_parallelism=given.tensorflow_intra_op_parallelism,
        inter_op_parallelism=given.tensorflow_inter_op_parallelism,
        prefer_tflite_model=given.prefer_tflite_model,
        enable_model_warmup=given.enable_model_warmup,
        allow_labels_for_unavailable=given.allow_version_labels_for_unavailable_models,
    )


def _models(config_file: str, name: str, base_path: str) -> tuple[ModelConfig, ...]:
    if not config_file and not base_path:
        raise FlagError("expected --model_base_path or --model_config_file, got neither")
    if config_file:
        text = _text("--model_config_file", config_file)
        try:
            return config.parse(text)
        except ServingError as error:
            raise FlagError(f"argument --model_config_file: {config_file}: {error.message}") from error
    try:
        config.check_base_path(name, base_path)
    except ServingError as error:
        raise FlagError(f"argument --model_base_path: {error.message}") from error
    return (ModelConfig(name, Path(base_path)),)


def _batching(parameters_file: str, *, enabled: bool) -> BatchingParameters | None:
    if not enabled:
        if parameters_file:
            raise FlagError(
                "argument --batching_parameters_file: it is set without setting --enable_batching to true"
            )
        return None
    if not parameters_file:
        return BatchingParameters()
    text = _text("--batching_parameters_file", parameters_file)
    try:
        return batching_parameters.parse(text)
    except ServingError as error:
        raise FlagError(f"argument --batching_parameters_file: {parameters_file}: {error.message}") from error


def _text(flag: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise FlagError(f"argument {flag}: cannot read {path}: {reason}") from error
