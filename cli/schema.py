"""Write the wire contract: a JSON Schema for each message and an AsyncAPI 3 document of all topics."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli.output import print_line
from schemas.contract import asyncapi
from schemas.errors import PermanentError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the files")
    parser.add_argument("--reference", metavar="FILE", type=Path, help="also write the reference as Markdown")
    parser.add_argument("--man", metavar="FILE", type=Path, help="also write the man page (needs group docs)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")


def run(arguments: Namespace) -> int:
    """Write or check the files."""
    files = {arguments.out / name: text for name, text in asyncapi.documents().items()}
    if arguments.reference is not None:
        from cli.reference import reference  # noqa: PLC0415  # it imports every command

        files[arguments.reference] = reference()
    if arguments.man is not None:
        from cli.man_page import man_page  # noqa: PLC0415  # as above

        files[arguments.man] = man_page()
    for path, text in files.items():
        if arguments.check:
            _check(path, text)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print_line(path)
    return 0


def _check(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        raise PermanentError(f"{path} is out of date", hint="run 'gleaner schema' without --check")
