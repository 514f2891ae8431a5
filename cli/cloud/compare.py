"""Compare versions side by side, by their model cards: what they were made of, metrics and verdicts."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli import options
from cli.output import print_line

_GAP = 2


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    whole = options.positive(int)
    parser.add_argument("first", type=whole, metavar="VERSION", help="number of a version")
    parser.add_argument("others", type=whole, nargs="+", metavar="VERSION", help="numbers of others")
    options.add_models(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots too")


def run(arguments: Namespace) -> int:
    """Print the table, and write the page."""
    from bus.files.atomic_file import write_atomic  # noqa: PLC0415  # each command loads what it needs, and no more
    from cloud.registry.registry import Registry  # noqa: PLC0415  # as above
    from cloud.reporting.comparison import (  # noqa: PLC0415  # as above
        comparison_notes,
        comparison_rows,
        render_comparison,
    )

    registry = Registry(arguments.out)
    cards = [registry.card(version) for version in (arguments.first, *arguments.others)]
    rows = [("", *(f"version {card.version}" for card in cards)), *comparison_rows(cards)]
    widths = [max(len(row[column]) for row in rows) + _GAP for column in range(len(cards) + 1)]
    for row in rows:
        print_line("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for note in comparison_notes(cards):
        print_line(f"note: {note}")
    if arguments.html is not None:
        write_atomic(arguments.html, render_comparison(cards).encode())
        print_line(f"page: {arguments.html}")
    return 0
