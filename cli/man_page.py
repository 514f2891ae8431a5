"""Generate the man page of the command from the parsers of all subcommands; needs the group `docs`."""

import re

from argparse_manpage.manpage import Manpage

from cli import exit_codes
from cli.completion import whole_parser
from schemas.distribution import DISTRIBUTION, version


def man_page() -> str:
    """Return the page in troff."""
    parser = whole_parser()
    # argparse-manpage reads these, and takes the rest from the parser.
    parser.man_short_description = "event-driven classification of camera photos"  # type: ignore[attr-defined]
    page = Manpage(
        parser,
        {
            "project_name": DISTRIBUTION,
            "prog": "gleaner",
            "version": version(),
            "date": "",
            "format": "single-commands-section",
            "manual_section": 1,
        },
    )
    # Without the date of the day, or every build would be another page.
    page = re.sub(r'(\.TH GLEANER "1" )"[^"]*"', r'\1""', str(page))
    codes = "\n".join(f".TP\n.B {code}\n{meaning}" for code, meaning in exit_codes.MEANINGS.items())
    return f"{page}\n.SH EXIT STATUS\n{codes}\n"
