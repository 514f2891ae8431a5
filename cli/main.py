"""The `gleaner` command: import and run one subcommand, and print its errors as one sentence."""

import errno
import importlib
import logging
import os
import sys
from argparse import ArgumentParser, Namespace
from typing import Protocol

from bus.mqtt.errors import PublishRefusedError
from cli import exit_codes, output
from cli.examples import examples_of
from cli.extras import missing_package
from cli.output import OutputError, print_error, print_line
from cli.parser import Parser
from schemas.distribution import version
from schemas.errors import GleanerError, PermanentError, TransientError, first_cause
from schemas.suggest import did_you_mean
from schemas.text import is_unicode

COMMANDS = {
    "send": "publish photos, wait for their results and print them",
    "tail": "print the messages on the topics, decoded",
    "check": "check configuration files without starting anything",
    "doctor": "check the broker, an edge and its model, and suggest fixes",
    "device": "run the agent of a camera device",
    "edge": "run the handler of an edge node",
    "mirror": "run a mirror of bundles for the edges of a site",
    "modelserver": "run the embedded model server (flags of tensorflow_model_server)",
    "cloud": "dataset, labels, training, releases and rollouts",
    "console": "see and steer the system in a browser, and label photos",
    "gateway": "run the gateway between the cloud's broker and KubeEdge",
    "notify": "notify people of events and silent nodes, through Apprise",
    "deploy": "write KubeEdge Rules for a list of nodes, and verify that each delivers",
    "up": "run a whole system for a local network on this machine",
    "broker": "run a mosquitto broker on this machine",
    "provision": "create the keys, certificates and ACL of a site",
    "completion": "print the completion script of a shell",
    "schema": "write the JSON Schemas and the AsyncAPI document of the topics",
    "demo": "run the whole loop on this machine",
}
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DISK_FAILURES = _FULL | {errno.EIO}
_FREE_SPACE = "free space on its disk, or name another folder"
_WITH_SUBCOMMANDS = ("cloud", "deploy")


class Command(Protocol):
    """The functions that each command module has."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare its arguments."""

    def run(self, arguments: Namespace) -> int:
        """Run the command and return the exit code."""


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return its exit code, see `cli/exit_codes.py`."""
    output.prepare()
    words = sys.argv[1:] if argv is None else argv
    name = words[0] if words else ""
    try:
        if name in ("-V", "--version", "version"):
            print_line(f"gleaner {version()}")
            return exit_codes.OK
        return _run(name, words[1:]) if name in COMMANDS else _usage(name)
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except ModuleNotFoundError as error:
        if (missing := missing_package(name, error)) is None:
            raise
        return _failure(words, missing)
    except (GleanerError, OSError, UnicodeEncodeError, BaseExceptionGroup) as error:
        return _failure(words, error)


def _failure(words: list[str], error: BaseException) -> int:
    """Print an error as one sentence and return the exit code; re-raise anything unexpected."""
    name = " ".join(words[: 1 + (words[0] in _WITH_SUBCOMMANDS)])
    cause = first_cause(error)
    if isinstance(cause, BrokenPipeError):  # the reader of a pipe has exited: `gleaner tail | head`
        sys.stderr.close()  # or the interpreter reports there, at exit, that stdout cannot be flushed
        return exit_codes.OK
    if isinstance(cause, KeyboardInterrupt):
        return exit_codes.INTERRUPTED
    if isinstance(cause, OutputError):
        output.discard_output()
    if isinstance(cause, OSError) and cause.errno in _DISK_FAILURES:
        where = "a file" if cause.filename is None else cause.filename
        hint = _FREE_SPACE if cause.errno in _FULL else None
        cause = TransientError(f"cannot write {where}: {cause.strerror}", hint=hint)
    elif isinstance(cause, OSError) and cause.filename is not None:
        cause = PermanentError(f"cannot use {cause.filename}: {cause.strerror}")
    if isinstance(cause, UnicodeEncodeError) and (odd := [word for word in words if not is_unicode(word)]):
        cause = PermanentError(
            f"argument {odd[0]!a} is not UTF-8", hint="only the paths of files may be that"
        )
    if not isinstance(cause, GleanerError):
        raise error  # a bug: its traceback is what helps
    print_error(f"gleaner {name}: {cause}")
    is_refused = isinstance(cause, PublishRefusedError)  # only services retry it: rights may be added
    return exit_codes.TRY_AGAIN if isinstance(cause, TransientError) and not is_refused else exit_codes.FAILED


def command_of(name: str) -> Command | None:
    """Import a subcommand; None for the model server, whose flags are those of tensorflow_model_server."""
    # Only this command: importing all would load TensorFlow and Lance for each of them.
    return None if name == "modelserver" else importlib.import_module(f"cli.{name}")


def parser_of(name: str) -> tuple[ArgumentParser, Command]:
    """Import a subcommand; return its parser and its module."""
    command = command_of(name)
    assert command is not None
    parser = Parser(
        prog=f"gleaner {name}", description=command.__doc__, epilog=examples_of(name), allow_abbrev=False
    )
    command.add_arguments(parser)
    return parser, command


def _run(name: str, words: list[str]) -> int:
    # TensorFlow would log to the terminal what only its developers understand; inherited by child processes.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if name == "modelserver":
        server = importlib.import_module("edge.modelserver")
        code: int = server.main(words)
        return code
    parser, command = parser_of(name)
    return command.run(parser.parse_args(words))


def _usage(name: str) -> int:
    asked = name in ("-h", "--help", "help")
    width = max(map(len, COMMANDS))
    lines = ["usage: gleaner COMMAND [OPTIONS]", ""]
    lines += [f"  {command:<{width}}  {summary}" for command, summary in COMMANDS.items()]
    lines += [
        "",
        "See 'gleaner COMMAND --help' for the options of a command, 'gleaner --version' for the version.",
    ]
    if not asked:
        hint = did_you_mean(name, (*COMMANDS, "--help", "--version"))
        unknown = f"gleaner: unknown command {name!r}{hint}"
        lines.append(unknown if name else "gleaner: no command given")
    for line in lines:
        (print_line if asked else print_error)(line)
    return exit_codes.OK if asked else exit_codes.USAGE


if __name__ == "__main__":
    sys.exit(main())
