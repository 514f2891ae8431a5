"""The `gleaner` command: import and run one subcommand, and print its errors as one sentence."""

import importlib
import sys
from argparse import ArgumentParser, Namespace
from typing import Protocol

from schemas.errors import GleanerError, PermanentError, TransientError

COMMANDS = {
    "send": "publish photos, wait for their results and print them",
    "tail": "print the messages on the topics, decoded",
    "doctor": "check the broker, an edge and its model, and suggest fixes",
    "device": "run the agent of a camera device",
    "edge": "run the handler of an edge node",
    "modelserver": "run the embedded model server (flags of tensorflow_model_server)",
    "cloud": "dataset, labels, training, releases and rollouts",
    "gateway": "run the gateway between the cloud's broker and KubeEdge",
    "deploy": "write KubeEdge Rules for a list of nodes, and verify that each delivers",
    "broker": "run a mosquitto broker on this machine",
    "provision": "create the keys, certificates and ACL of a site",
    "schema": "write the JSON Schemas and the AsyncAPI document of the topics",
    "demo": "run the whole loop on this machine",
}
_WITH_SUBCOMMANDS = ("cloud", "deploy")
_INTERRUPTED = 130
_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h


class Command(Protocol):
    """The functions that each command module has."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare its arguments."""

    def run(self, arguments: Namespace) -> int:
        """Run the command and return the exit code."""


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 0 success, 1 failure, 2 usage error, 75 try again."""
    words = sys.argv[1:] if argv is None else argv
    name = words[0] if words else ""
    if name not in COMMANDS:
        return _usage(name)
    try:
        return _run(name, words[1:])
    except KeyboardInterrupt:
        return _INTERRUPTED  # as shells report it: 128 + SIGINT
    except (GleanerError, OSError, BaseExceptionGroup) as error:
        return _failure(" ".join(words[: 1 + (name in _WITH_SUBCOMMANDS)]), error)


def _failure(name: str, error: BaseException) -> int:
    """Print an error as one sentence and return the exit code; re-raise anything unexpected."""
    cause = first_cause(error)
    if isinstance(cause, BrokenPipeError):  # the reader of a pipe has exited: `gleaner tail | head`
        sys.stderr.close()  # or the interpreter reports there, at exit, that stdout cannot be flushed
        return 0
    if isinstance(cause, OSError) and cause.filename is not None:
        cause = PermanentError(f"cannot use {cause.filename}: {cause.strerror}")
    if not isinstance(cause, GleanerError):
        raise error  # a bug: its traceback is what helps
    print(f"gleaner {name}: {cause}", file=sys.stderr)
    return _TRY_AGAIN if isinstance(cause, TransientError) else 1


def first_cause(error: BaseException) -> BaseException:
    """Return the first error inside nested exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def parser_of(name: str) -> tuple[ArgumentParser, Command]:
    """Import a subcommand; return its parser and its module."""
    # Only this command: importing all would load TensorFlow and Lance for each of them.
    command: Command = importlib.import_module(f"cli.{name}")
    parser = ArgumentParser(prog=f"gleaner {name}", description=command.__doc__, allow_abbrev=False)
    command.add_arguments(parser)
    return parser, command


def _run(name: str, words: list[str]) -> int:
    if name == "modelserver":  # it parses its flags itself: they are those of tensorflow_model_server
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
    lines += ["", "See 'gleaner COMMAND --help' for the options of a command."]
    if not asked:
        lines.append(f"gleaner: unknown command {name!r}" if name else "gleaner: no command given")
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())
