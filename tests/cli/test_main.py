import asyncio

import pytest

from cli import main as main_module
from cli import schema
from cli.main import COMMANDS, first_cause
from schemas.errors import PermanentError, TransientError
from tests.cli.conftest import start


@pytest.mark.parametrize(("words", "got"), [((), "nothing"), (("sned",), "sned")])
def test_no_command_and_an_unknown_one_are_said(called, words, got):
    """Exit code 2, the commands that there are, and what was got instead."""
    done = called(*words)
    assert done.code == 2
    assert f"expected a command, got {got}" in done.err
    assert all(name in done.err for name in COMMANDS)
    assert done.out == ""


@pytest.mark.parametrize("word", ["-h", "--help", "help"])
def test_help_lists_the_commands(called, word):
    """Help that was asked for goes to standard output and is no failure."""
    done = called(word)
    assert (done.code, done.err) == (0, "")
    assert all(summary in done.out for summary in COMMANDS.values())


@pytest.mark.parametrize("name", [*(name for name in COMMANDS if name != "modelserver"), "cloud train"])
def test_every_command_explains_itself(called, name):
    """`--help` of each command prints its options and ends well."""
    done = called(*name.split(), "--help")
    assert (done.code, done.err) == (0, "")
    assert f"usage: gleaner {name}" in done.out


@pytest.mark.parametrize("words", [("send",), ("tail", "--cuont", "3"), ("cloud",), ("cloud", "trian")])
def test_what_cannot_be_parsed_is_2(called, words):
    """A missing, abbreviated or unknown option is a wrong call."""
    assert called(*words).code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermanentError("photo", expected="a cat", got="a dog"), 1),
        (TransientError("broker", expected="a connection", got="none"), 75),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [TransientError("a", expected="b", got="c")])]), 75),
        (FileNotFoundError(2, "No such file or directory", "/x/y"), 1),
    ],
)
def test_errors_are_sentences_with_an_exit_code(called, monkeypatch, error, code):
    """1 is for good, 75 says that the same call may succeed later; both are one line."""

    def fail(arguments: object) -> int:
        raise error

    monkeypatch.setattr(schema, "run", fail)
    done = called("schema", "--out", "x")
    assert done.code == code
    assert done.sentence.startswith("gleaner schema: ")
    assert ": expected " in done.sentence


@pytest.mark.parametrize("bug", [ZeroDivisionError(), ExceptionGroup("tasks", [KeyError("x")]), OSError("x")])
def test_a_bug_is_no_sentence(called, monkeypatch, bug):
    """What nobody foresaw keeps its traceback."""

    def fail(arguments: object) -> int:
        raise bug

    monkeypatch.setattr(schema, "run", fail)
    with pytest.raises(type(bug)):
        called("schema", "--out", "x")


def test_the_first_cause_is_inside_all_groups():
    """Groups of groups are opened up to the first error in them."""
    cause = ValueError("x")
    assert first_cause(ExceptionGroup("a", [ExceptionGroup("b", [cause]), KeyError()])) is cause


def test_interrupted_is_130(called, monkeypatch):
    """Ctrl-C is no failure of the command."""

    def interrupt(name: str, words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "_run", interrupt)
    assert called("schema").code == 130


async def test_a_closed_pipe_ends_it_quietly(edge, at):
    """`gleaner tail | head -1` ends with the next line, without a word."""
    process = await start("tail", *at)
    await edge.bus.publish_bytes("gleaner/v1/nothing", b"one", retain=True)
    async with asyncio.timeout(30):
        await process.stdout.readline()
        process.stdout._transport.close()
        while process.returncode is None:
            await edge.bus.publish_bytes("gleaner/v1/nothing", b"more")
            await asyncio.wait([asyncio.ensure_future(process.wait())], timeout=0.05)
    assert process.returncode == 0
    assert await process.stderr.read() == b""


async def test_a_service_ends_in_order_when_told(at, edge, tmp_path):
    """SIGTERM ends a service with exit code 0, and its last word is `offline`."""
    process = await start("device", *at, "--interval", "0", "--state-dir", tmp_path)
    await edge.status("online")
    process.terminate()
    async with asyncio.timeout(30):
        assert await process.wait() == 0
    assert (await edge.status("offline")).reason == "it was stopped"
