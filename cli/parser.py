"""An argument parser that suggests what a misspelt command, option or value was probably meant to be."""

import sys
from argparse import Action, ArgumentError, ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from schemas.suggest import did_you_mean
from schemas.text import escaped


class Parser(ArgumentParser):
    """A parser with such suggestions; what was typed is printed escaped, and sub-commands inherit both."""

    def parse_args(  # type: ignore[override]  # without the overloads for foreign namespaces
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None
    ) -> Namespace:
        """Parse the words; exit with code 2 and a suggestion if one is unknown."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            command = _chosen(self, sys.argv[1:] if args is None else args)
            hint = did_you_mean(unknown[0].partition("=")[0], options_of(command))
            command.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit with code 2."""
        super().error(escaped(message))

    def _check_value(self, action: Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        hint = did_you_mean(str(value), known) or f"; known are {', '.join(known)}"
        raise ArgumentError(action, f"unknown value {value!r}{hint}")


def _chosen(parser: ArgumentParser, words: Sequence[str]) -> ArgumentParser:
    """Return the parser of the innermost command among the words."""
    for word in words:
        commands = (action.choices for action in actions_of(parser) if isinstance(action.choices, Mapping))
        parser = next((choices[word] for choices in commands if word in choices), parser)
    return parser


def actions_of(parser: ArgumentParser) -> list[Action]:
    """Return the declared arguments of a parser."""
    return parser._actions  # noqa: SLF001  # argparse has no public list of them


def options_of(parser: ArgumentParser) -> list[str]:
    """Return the option strings of a parser, for example `--config`."""
    return [option for action in actions_of(parser) for option in action.option_strings]
