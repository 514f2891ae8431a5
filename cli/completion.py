"""Print the completion script of a shell; put it where the shell looks, see docs/install.md."""

from argparse import ArgumentParser, Namespace

import shtab

from cli import exit_codes
from cli.output import print_raw
from cli.parser import Parser


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help="shell to complete for")


def run(arguments: Namespace) -> int:
    """Print the script."""
    print_raw(shtab.complete(whole_parser(), shell=arguments.shell))
    return exit_codes.OK


def whole_parser() -> ArgumentParser:
    """Return one parser with all commands, for completion and the man page; `main` parses one at a time."""
    from cli.main import COMMANDS, command_of  # noqa: PLC0415  # it imports this module

    parser = Parser(prog="gleaner", description="Photos in over MQTT, results back, and a model that learns.")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, summary in COMMANDS.items():
        inner = commands.add_parser(name, help=summary, description=summary)
        if (module := command_of(name)) is not None:
            inner.description = module.__doc__
            module.add_arguments(inner)
    return parser
