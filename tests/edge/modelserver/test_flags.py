"""The command line: what is parsed and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge.modelserver.batching.parameters import BatchingParameters
from edge.modelserver.flags import FlagError, parse
from edge.modelserver.models.versions import All, Latest, Specific

MODEL = "--model_base_path=/models/pets"


def test_the_defaults_are_those_of_tensorflow_model_server() -> None:
    """Port 8500, model "default", a scan each second, 5 retries 60 s apart."""
    flags = parse([MODEL])
    assert (flags.host, flags.port, flags.poll_wait_s) == ("127.0.0.1", 8500, 1.0)
    assert (flags.max_num_load_retries, flags.load_retry_interval_s) == (5, 60.0)
    assert (flags.models[0].name, flags.models[0].base_path) == ("default", Path("/models/pets"))
    assert flags.models[0].policy == Latest(1)
    assert flags.batching is None
    assert flags.enable_model_warmup
    assert not flags.prefer_tflite_model
    assert not flags.allow_labels_for_unavailable


def test_flags_take_an_equals_sign_or_a_space() -> None:
    """`--flag=value` and `--flag value` are the same; a negative number is a value."""
    flags = parse(
        ["--model_base_path", "/m", "--model_name", "pets", "--file_system_poll_wait_seconds", "-1"]
    )
    assert flags == parse(["--model_base_path=/m", "--model_name=pets", "--file_system_poll_wait_seconds=-1"])
    assert flags.poll_wait_s == -1.0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--enable_batching"], True),
        (["--enable_batching=true"], True),
        (["--enable_batching=1"], True),
        (["--enable_batching", "true"], True),
        (["--enable_batching=false"], False),
        (["--enable_batching=False"], False),
        ([], False),
    ],
)
def test_a_switch_has_an_optional_value(arguments: list[str], expected: bool) -> None:  # noqa: FBT001 - parametrised
    """A switch is turned on by its name, and on or off by a value."""
    assert (parse([MODEL, *arguments]).batching is not None) is expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no model to serve: give --model_base_path or --model_config_file"),
        (["--port=70000", MODEL], "argument --port: expected 0 to 65535, got 70000"),
        (["--port=x", MODEL], "argument --port: expected a whole number, got 'x'"),
        (
            ["--enable_batching=maybe", MODEL],
            "argument --enable_batching: expected true or false, got 'maybe'",
        ),
        (
            ["--file_system_poll_wait_seconds=nan", MODEL],
            "argument --file_system_poll_wait_seconds: expected a number of seconds, got 'nan'",
        ),
        (["--such=1", MODEL], "unrecognized arguments: --such=1"),
        (
            ["--rest_api_port=8501", MODEL],
            (
                "argument --rest_api_port: cannot use port 8501: this server has no REST API, only "
                "metrics with --monitoring_config_file"
            ),
        ),
        (
            ["--model_base_path=models"],
            (
                "argument --model_base_path: Expected model default to have an absolute path or URI; "
                "got base_path()=models"
            ),
        ),
        (
            ["--model_base_path=gs://bucket/models"],
            (
                "argument --model_base_path: Expected model default to have a local path; "
                "got base_path()=gs://bucket/models"
            ),
        ),
        (
            ["--batching_parameters_file=b", MODEL],
            "argument --batching_parameters_file: has no effect without --enable_batching",
        ),
        (
            ["--model_config_file=/no/such"],
            "argument --model_config_file: cannot read /no/such: No such file or directory",
        ),
    ],
)
def test_an_invalid_command_line_is_refused(arguments: list[str], message: str) -> None:
    """Each error is one line that names the flag and what is wrong."""
    with pytest.raises(FlagError) as error:
        parse(arguments)
    assert str(error.value) == message


def test_an_invalid_command_line_ends_with_2_before_tensorflow_loads() -> None:
    """The error is one line on standard error, written before TensorFlow is loaded, which takes seconds."""
    script = (
        "import sys; from edge.modelserver import main; code = main(['--port=x'])\n"
        "sys.exit('TensorFlow was loaded' if 'tensorflow.python' in sys.modules else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 2
    assert done.stderr == "modelserver: error: argument --port: expected a whole number, got 'x'\n"
    assert done.stdout == ""


def test_models_are_read_from_a_config_file(tmp_path: Path) -> None:
    """A ModelServerConfig in text format lists models with policies and labels."""
    file = tmp_path / "models.config"
    file.write_text("""
        model_config_list {
          config { name: "a" base_path: "/a" model_platform: "tensorflow"
                   model_version_policy { latest { num_versions: 2 } }
                   version_labels { key: "gold" value: 3 } }
          config { name: "b" base_path: "/b" model_type: TENSORFLOW model_version_policy { all { } } }
          config { name: "c" base_path: "/c" model_platform: "tensorflow"
                   model_version_policy { specific { versions: 4 versions: 2 } } }
        }""")
    a, b, c = parse([f"--model_config_file={file}"]).models
    assert (a.name, a.policy, a.labels) == ("a", Latest(2), {"gold": 3})
    assert (b.base_path, b.policy) == (Path("/b"), All())
    assert c.policy == Specific(frozenset({2, 4}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list { config { nome: 'a' } }", "Invalid protobuf: 1:30"),
        (
            "model_config_list { config { name: 'a' base_path: '/a' } }",
            (
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
                "ModelServerConfig::model_platform."
            ),
        ),
        (
            "model_config_list { config { name: 'a' base_path: '/a' model_platform: 'onnx' } }",
            "Model a requests unsupported platform onnx",
        ),
        (
            "model_config_list { config { name: 'a' } config { name: 'a' } }",
            "Illegal to list model a multiple times in config list",
        ),
    ],
)
def test_an_invalid_config_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """An invalid list of models is refused at the start, with the file and the reason."""
    file = tmp_path / "models.config"
    file.write_text(text)
    with pytest.raises(FlagError) as error:
        parse([f"--model_config_file={file}"])
    assert str(error.value).startswith(f"argument --model_config_file: {file}: {message}")


def test_batching_parameters_are_read(tmp_path: Path) -> None:
    """All fields of BatchingParameters in text format are read."""
    file = tmp_path / "batching.config"
    file.write_text("""
        max_batch_size { value: 32 } batch_timeout_micros { value: 2000 } max_enqueued_batches { value: 7 }
        num_batch_threads { value: 3 } thread_pool_name { value: "pool" } allowed_batch_sizes: 4
        allowed_batch_sizes: 16 pad_variable_length_inputs: true
        enable_large_batch_splitting { value: true } max_execution_batch_size { value: 16 }""")
    flags = parse([MODEL, "--enable_batching", f"--batching_parameters_file={file}"])
    assert flags.batching == BatchingParameters(
        max_batch_size=32,
        batch_timeout_micros=2000,
        max_enqueued_batches=7,
        num_batch_threads=3,
        allowed_batch_sizes=(4, 16),
        pad_variable_length_inputs=True,
        enable_large_batch_splitting=True,
        max_execution_batch_size=16,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_sise { value: 1 }", "Invalid protobuf: 1:1"),
        ("max_batch_size { value: 0 }", "max_batch_size must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
        (
            "max_batch_size { value: 4 } max_execution_batch_size { value: 5 }",
            (
                "max_execution_batch_size must be less than or equal to max_batch_size; was 5; "
                "expected at most 4"
            ),
        ),
        (
            "max_batch_size { value: 4 } allowed_batch_sizes: 4 allowed_batch_sizes: 2",
            "allowed_batch_sizes entries must be positive and monotonically increasing",
        ),
        (
            "max_batch_size { value: 4 } allowed_batch_sizes: 2",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 2; expected 4",
        ),
    ],
)
def test_invalid_batching_parameters_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """Parameters out of range or inconsistent are refused at the start."""
    file = tmp_path / "batching.config"
    file.write_text(text)
    with pytest.raises(FlagError) as error:
        parse([MODEL, "--enable_batching", f"--batching_parameters_file={file}"])
    assert str(error.value).startswith(f"argument --batching_parameters_file: {file}: {message}")
