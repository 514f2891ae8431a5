import asyncio
import errno
import shlex
import signal
import socket

import pytest

from bus.broker.process import is_listening
from bus.mqtt.errors import PublishRefusedError
from cli import main as main_module
from cli import schema
from cli.cloud.commands import COMMANDS as CLOUD_COMMANDS
from cli.examples import EXAMPLES
from cli.main import COMMANDS, parser_of
from schemas.errors import PermanentError, TransientError, first_cause
from tests.cli.conftest import start
from tests.conftest import DEADLINE_S, eventually


@pytest.mark.parametrize(
    ("words", "error"), [((), "no command given"), (("sned",), "unknown command 'sned'")]
)
def test_a_missing_or_unknown_command_is_a_usage_error(called, words, error):
    """The exit code is 2, and standard error has the commands and the error."""
    done = called(*words)
    assert done.code == 2
    assert f"gleaner: {error}" in done.err
    assert all(name in done.err for name in COMMANDS)
    assert done.out == ""


@pytest.mark.parametrize("word", ["-h", "--help", "help"])
def test_help_lists_the_commands(called, word):
    """Requested help is printed to standard output with exit code 0."""
    done = called(word)
    assert (done.code, done.err) == (0, "")
    assert all(summary in done.out for summary in COMMANDS.values())


@pytest.mark.parametrize("name", [*(name for name in COMMANDS if name != "modelserver"), "cloud train"])
def test_every_command_has_help(called, name):
    """`--help` of each command prints its options with exit code 0."""
    done = called(*name.split(), "--help")
    assert (done.code, done.err) == (0, "")
    assert f"usage: gleaner {name}" in done.out


@pytest.mark.parametrize("words", [("send",), ("tail", "--cuont", "3"), ("cloud",), ("cloud", "trian")])
def test_a_usage_error_is_2(called, words):
    """A missing argument, a misspelt option and an unknown step exit with code 2."""
    assert called(*words).code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermanentError("it fails", hint="mend it"), 1),
        (TransientError("it fails", hint="mend it"), 75),
        (PublishRefusedError("it fails", hint="mend it"), 1),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [TransientError("it fails", hint="mend it")])]), 75),
    ],
)
def test_errors_are_sentences_with_an_exit_code(called, monkeypatch, error, code):
    """A permanent error and a refusal exit with 1, a transient one with 75; all print one line."""

    def fail(arguments: object) -> int:
        raise error

    monkeypatch.setattr(schema, "run", fail)
    done = called("schema", "--out", "x")
    assert done.code == code
    assert done.sentence == "gleaner schema: it fails; mend it"


def test_an_unusable_file_is_a_sentence(called, monkeypatch):
    """An OSError with a file name is printed with the name and the reason."""

    def fail(arguments: object) -> int:
        raise FileNotFoundError(2, "No such file or directory", "/x/y")

    monkeypatch.setattr(schema, "run", fail)
    done = called("schema", "--out", "x")
    assert done.code == 1
    assert done.sentence == "gleaner schema: cannot use /x/y: No such file or directory"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "a file: No space left on device; free space on "),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded", "/x"),
            "/x: Disk quota exceeded; free space on its disk",
        ),
        (OSError(errno.EIO, "Input/output error"), "a file: Input/output error"),
    ],
)
def test_a_full_or_failing_disk_is_a_sentence(called, monkeypatch, error, said):
    """A write that fails names no file; the same command may succeed later."""

    def fail(arguments: object) -> int:
        raise error

    monkeypatch.setattr(schema, "run", fail)
    done = called("schema", "--out", "x")
    assert done.code == 75
    assert done.sentence.startswith(f"gleaner schema: cannot write {said}")


def test_an_argument_that_is_not_utf_8_is_a_sentence(called, monkeypatch):
    """Bytes that are not text can only be the name of a file."""

    def fail(arguments: object) -> int:
        raise ExceptionGroup("tasks", [error])

    error = UnicodeEncodeError("utf-8", "caf\udce9", 3, 4, "surrogates not allowed")
    monkeypatch.setattr(schema, "run", fail)
    done = called("schema", "--out", "caf\udce9")
    assert done.code == 1
    assert done.sentence.startswith(r"gleaner schema: argument 'caf\udce9' is not UTF-8; only")


@pytest.mark.parametrize("bug", [ZeroDivisionError(), ExceptionGroup("tasks", [KeyError("x")]), OSError("x")])
def test_a_bug_keeps_its_traceback(called, monkeypatch, bug):
    """An unexpected exception leaves main()."""

    def fail(arguments: object) -> int:
        raise bug

    monkeypatch.setattr(schema, "run", fail)
    with pytest.raises(type(bug)):
        called("schema", "--out", "x")


def test_the_first_cause_is_found_in_nested_groups():
    """Nested exception groups are unwrapped to their first error."""
    cause = ValueError("x")
    assert first_cause(ExceptionGroup("a", [ExceptionGroup("b", [cause]), KeyError()])) is cause


def test_interrupted_is_130(called, monkeypatch):
    """Ctrl-C exits with the code that shells use for it."""

    def interrupt(name: str, words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "_run", interrupt)
    assert called("schema").code == 130


async def test_a_closed_pipe_is_not_an_error(edge, at):
    """`gleaner tail | head -1` exits with 0 at its next line and prints no error."""
    process = await start("tail", *at)
    await edge.bus.publish_bytes("gleaner/v1/nothing", b"one", retain=True)
    async with asyncio.timeout(DEADLINE_S):
        await process.stdout.readline()
        process.stdout._transport.close()
        while process.returncode is None:
            await edge.bus.publish_bytes("gleaner/v1/nothing", b"more")
            await asyncio.wait([asyncio.ensure_future(process.wait())], timeout=0.05)
    assert process.returncode == 0
    assert await process.stderr.read() == b""


async def test_a_service_stops_on_sigterm(at, edge, tmp_path):
    """SIGTERM ends a service with exit code 0, after it has published the status `offline`."""
    process = await start("device", *at, "--interval", "0", "--state-dir", tmp_path)
    await edge.status("online")
    process.terminate()
    async with asyncio.timeout(DEADLINE_S):
        assert await process.wait() == 0
    assert (await edge.status("offline")).reason == "it was stopped"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_a_broker_of_a_site_ends_with_the_code_of_the_table(tmp_path, mosquitto, number, code):
    """SIGTERM stops a service, which is not a failure; Ctrl-C interrupts it. mosquitto ends with it."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = await start("broker", "--config", config)
    await eventually(lambda: is_listening(port))
    process.send_signal(number)
    async with asyncio.timeout(DEADLINE_S):
        await process.communicate()
    assert process.returncode == code
    assert not is_listening(port)


def test_a_port_in_use_is_a_failure(called, address):
    """Trying again does not help: another port does. The exit code is that of every other port."""
    done = called("broker", "--port", address.port)
    assert done.code == 1
    assert f"port {address.port}: it is in use" in done.sentence


def test_the_version_is_printed(called):
    """`gleaner --version` prints name and version, as scripts and reports of faults need it."""
    done = called("--version")
    assert (done.code, done.out, done.err) == (0, "gleaner 0.1.0\n", "")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("devcie",), "'device'"),
        (("--vresion",), "'--version'"),
        (("cloud", "trian"), "'train'"),
        (("tail", "--cuont", "3"), "'--count'"),
        (("cloud", "train", "--datset", "x"), "'--dataset'"),
        (("device", "--log-level", "infos"), "'info'"),
    ],
)
def test_a_misspelt_word_gets_a_suggestion(called, words, meant):
    """Commands, options and values that do not exist are answered with the most similar one."""
    done = called(*words)
    assert done.code == 2
    assert f"did you mean {meant}?" in done.err


def test_only_options_of_the_command_are_suggested(called):
    """An option of another command is not a suggestion, and the usage is that of the command."""
    done = called("cloud", "train", "--models", "x")
    assert done.err.startswith("usage: gleaner cloud train ")
    assert done.err.endswith("gleaner cloud train: error: unrecognized arguments: --models\n")


def test_the_value_of_an_unknown_option_is_not_taken_for_an_argument(called):
    """The option is what is wrong, not its value."""
    assert called("console", "--port", "99999").err.endswith("unrecognized arguments: --port\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_every_command_is_completed(called, shell):
    """The script of each shell has all commands and the options of sub-commands."""
    done = called("completion", shell)
    assert done.code == 0
    assert all(name in done.out for name in COMMANDS)
    assert "bake-time-s" in done.out


def test_every_help_ends_with_examples_that_parse(called, capsys):
    """Each command and sub-command has some, as they are written, and they have existing options."""
    wrong = []
    for name, words in EXAMPLES.items():
        first, *inner = name.split()
        for example in words:
            typed = shlex.split(example.partition(" > ")[0])
            try:
                parser_of(first)[0].parse_args([*inner, *typed])
            except SystemExit:
                wrong.append(f"gleaner {name} {example}: {capsys.readouterr().err.splitlines()[-1]}")
    assert wrong == []
    steps = {f"cloud {name}" for name in CLOUD_COMMANDS} | {"deploy render", "deploy verify"}
    assert EXAMPLES.keys() == steps | (COMMANDS.keys() - {"cloud", "deploy", "modelserver"})
    assert called("cloud", "import", "--help").out.endswith(
        "examples:\n  gleaner cloud import DIR --hold-out 20%\n  gleaner cloud import export.zip --dry-run\n"
        "  gleaner cloud import labels.csv\n  gleaner cloud import clip.mp4 --label cat --every 2\n"
    )
