"""An argument parser that suggests what a misspelt command, option or value was probably meant to be."""

import itertools
import sys
from argparse import Action, ArgumentError, ArgumentParser, HelpFormatter, Namespace
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from cli.examples import HEADING
from schemas.suggest import did_you_mean
from schemas.text import escaped


class Formatter(HelpFormatter):
    """Leaves examples as they are written; all other texts are filled."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(HEADING) else super()._fill_text(text, width, indent)


class Parser(ArgumentParser):
    """A parser with such suggestions; what was typed is printed escaped, and sub-commands inherit both."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": Formatter, **settings})

    def parse_args(  # type: ignore[override]  # without the overloads for foreign namespaces
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None
    ) -> Namespace:
        """Parse the words; exit with code 2 and a suggestion if one is unknown."""
        words = sys.argv[1:] if args is None else args
        parsers = _chosen(self, words)
        options = {option for parser in parsers for option in options_of(parser)}
        # First, because argparse would take the value of an unknown option for an argument.
        before_separator = itertools.takewhile(lambda word: word != "--", words)
        unknown = [word for word in before_separator if word.startswith("--") and _name(word) not in options]
        if not unknown:
            parsed, unknown = self.parse_known_args(words, namespace)
        if unknown:
            hint = did_you_mean(_name(unknown[0]), options)
            parsers[-1].error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
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


def _chosen(parser: ArgumentParser, words: Sequence[str]) -> list[ArgumentParser]:
    """Return the parsers of the commands among the words, the innermost last."""
    chosen = [parser]
    for word in words:
        choices = (action.choices for action in actions_of(chosen[-1]) if isinstance(action.choices, Mapping))
        chosen += [commands[word] for commands in choices if word in commands]
    return chosen


def _name(word: str) -> str:
    return word.partition("=")[0]


def actions_of(parser: ArgumentParser) -> list[Action]:
    """Return the declared arguments of a parser."""
    return parser._actions  # noqa: SLF001  # argparse has no public list of them


def options_of(parser: ArgumentParser) -> list[str]:
    """Return the option strings of a parser, for example `--config`."""
    return [option for action in actions_of(parser) for option in action.option_strings]
