"""Any text as the value of an argument gives a value or an error message, never a traceback."""

import argparse
import contextlib
import io
from collections.abc import Iterator

import pytest

from cli.main import COMMANDS, main, parser_of
from cli.parser import actions_of
from schemas.errors import GleanerError

NASTY = (
    "", " ", "\n", "-", "-1", "0", "00", "1e309", "nan", "-inf", "inf", "9" * 400, "9" * 5000, "1_000",
    "\uff11\uff12", "0x10", "1,2,,3", ",", ":", "host:", "host:99999", "[::1]:1883", "[::1", "mqtt://",
    "mqtt://a:b@c:99999", "http://[", "a/b/c", "../..", "~nobody-here/x", "%s%d%(prog)s", "{0}{x}",
    "\x1b[2J", "caf\udce9", "😀" * 64, "x" * 5000, "2026-13-45", "0001-01-01",
    "9999-12-31T23:59:59-23:59", "1e5", "50Z", "\u0661G", "file://", "C:\\x", "/dev/null", "/", ".",
)  # fmt: skip


def parsers() -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of each command and sub-command."""
    for name in COMMANDS:
        if name == "modelserver":  # the flags of tensorflow_model_server, which have a parser of their own
            continue
        waiting = [parser_of(name)[0]]
        while waiting:
            parser = waiting.pop()
            yield parser
            for action in actions_of(parser):
                if isinstance(action, argparse._SubParsersAction):  # argparse has no other way
                    waiting += action.choices.values()


def test_every_value_is_taken_or_refused_in_a_sentence():
    """Empty, huge, of other alphabets, with control characters, with bytes that are not text."""
    tried, wrong = 0, []
    for parser in parsers():
        for action in actions_of(parser):
            for text in NASTY if action.nargs != 0 else ():
                tried += 1
                try:
                    parser._check_value(action, parser._get_value(action, text))  # as above
                except (argparse.ArgumentError, GleanerError):
                    continue
                except OSError as error:
                    if error.filename is not None:  # `main` names the file
                        continue
                    wrong.append((parser.prog, action.dest, text[:20], repr(error)))
                except Exception as error:  # noqa: BLE001  # each is a traceback for a user
                    wrong.append((parser.prog, action.dest, text[:20], repr(error)))
    assert wrong == []
    assert tried > 10_000


@pytest.mark.parametrize("text", ["\x1b[2J", "caf\udce9", "x\ny", "\uff19 x", "-", "--"])
@pytest.mark.parametrize(
    "words", [(), ("cloud",), ("deploy",), ("completion",), ("tail", "--count"), ("cloud", "steer")]
)
def test_a_word_that_nobody_knows_is_shown_escaped(words, text):
    """As a command, a sub-command, a choice, a number: exit code 2 and printable lines."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([*words, text])
        except SystemExit as ended:
            code = ended.code
    assert code == 2
    assert all(line.isprintable() for line in err.getvalue().splitlines())
    assert "Traceback" not in err.getvalue()
