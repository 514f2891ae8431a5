"""Write the contract for other languages: JSON Schema of each message and AsyncAPI 3 of all topics."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from schemas import asyncapi
from schemas.errors import PermanentError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write to")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file would change")


def run(arguments: Namespace) -> int:
    """Write or check the files."""
    if arguments.check:
        for name, text in asyncapi.documents().items():
            path = arguments.out / name
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                raise PermanentError(
                    str(path), expected="what `gleaner schema --out` writes", got="something else"
                )
        return 0
    for path in asyncapi.write(arguments.out):
        print(path)
    return 0
