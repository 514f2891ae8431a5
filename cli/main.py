"""The `gleaner` command: finds the subcommand, imports only that, and turns errors into sentences."""

import importlib
import sys
from argparse import ArgumentParser, Namespace
from typing import Protocol

from schemas.errors import GleanerError, PermanentError, TransientError

COMMANDS = {
    "send": "publish photos, wait for the answers, print them",
    "tail": "follow every topic, decoded",
    "doctor": "check broker, edge and model, and say what to do",
    "device": "run the agent of a camera device",
    "edge": "run the handler of an edge node",
    "modelserver": "run the embedded model server (flags of tensorflow_model_server)",
    "cloud": "import, collect, review, teach, train, release, rollout, policy, watch, status",
    "gateway": "run the gateway between the cloud's broker and KubeEdge",
    "deploy": "write KubeEdge's Rules for a list of nodes, and see each of them work",
    "broker": "run a mosquitto on this machine",
    "provision": "make the keys, certificates and rights of a site",
    "schema": "write JSON Schema and AsyncAPI of the topics",
    "demo": "run the whole loop on this machine",
}
_WITH_STEPS = ("cloud", "deploy")
_INTERRUPTED = 130
_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h


class Command(Protocol):
    """What a module of this package offers."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare its arguments."""

    def run(self, arguments: Namespace) -> int:
        """Do it and return the exit code."""


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 0 done, 1 failed, 2 wrongly called, 75 try again."""
    words = sys.argv[1:] if argv is None else argv
    name = words[0] if words else ""
    if name not in COMMANDS:
        return _usage(name)
    try:
        return _run(name, words[1:])
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (GleanerError, OSError, BaseExceptionGroup) as error:
        return _failure(" ".join(words[: 1 + (name in _WITH_STEPS)]), error)


def _failure(name: str, error: BaseException) -> int:
    """Say what went wrong in one sentence, and return the exit code; what is a bug is raised again."""
    cause = first_cause(error)
    if isinstance(cause, BrokenPipeError):  # `gleaner tail | head`
        sys.stderr.close()
        return 0
    if isinstance(cause, OSError) and cause.filename is not None:
        cause = PermanentError(str(cause.filename), expected="to be usable", got=cause.strerror)
    if not isinstance(cause, GleanerError):
        raise error
    print(f"gleaner {name}: {cause}", file=sys.stderr)
    return _TRY_AGAIN if isinstance(cause, TransientError) else 1


def first_cause(error: BaseException) -> BaseException:
    """Return the first error inside groups of errors: one sentence is what a person can use."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def parser_of(name: str) -> tuple[ArgumentParser, Command]:
    """Return the parser of a subcommand and its module."""
    command: Command = importlib.import_module(f"cli.{name}")
    parser = ArgumentParser(prog=f"gleaner {name}", description=command.__doc__, allow_abbrev=False)
    command.add_arguments(parser)
    return parser, command


def _run(name: str, words: list[str]) -> int:
    if name == "modelserver":  # its flags are those of another program, so it reads them itself
        server = importlib.import_module("edge.modelserver")
        code: int = server.main(words)
        return code
    parser, command = parser_of(name)
    return command.run(parser.parse_args(words))


def _usage(name: str) -> int:
    wanted = name in ("-h", "--help", "help")
    width = max(map(len, COMMANDS))
    lines = ["usage: gleaner COMMAND [OPTIONS]", ""]
    lines += [f"  {command:<{width}}  {summary}" for command, summary in COMMANDS.items()]
    lines += ["", "gleaner COMMAND --help tells more."]
    if not wanted:
        lines.append(f"gleaner: expected a command, got {name or 'nothing'}")
    print("\n".join(lines), file=sys.stdout if wanted else sys.stderr)
    return 0 if wanted else 2


if __name__ == "__main__":
    sys.exit(main())
