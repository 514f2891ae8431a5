"""Check configuration files without starting anything: fields, values, and the files that they name."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from bus.config import Broker, ConfigError
from cli import exit_codes
from cli.configurations import KINDS, Recognised, recognise
from cli.output import print_error, print_line

_FILES = ("release_key",)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="TOML file of any service")
    parser.add_argument(
        "--as",
        dest="kind",
        choices=tuple(KINDS),
        help="what the file is for (default: by its name or its fields)",
    )


def run(arguments: Namespace) -> int:
    """Check all files; return 1 if one of them cannot be used."""
    failed = 0
    for path in arguments.files:
        try:
            found = recognise(path, arguments.kind)
        except ConfigError as error:
            failed += 1
            print_error(f"gleaner check: {error}")
            continue
        problems = list(_problems(found))
        for problem in problems:
            print_error(f"gleaner check: configuration {path}: {problem}")
        failed += bool(problems)
        if not problems:
            print_line(f"{path}: a valid configuration of {KINDS[found.kind][2]}")
    return exit_codes.FAILED if failed else exit_codes.OK


def _problems(found: Recognised) -> Iterator[str]:
    """Yield what a service would find out only when it starts."""
    for field, name in _named_files(found):
        if not Path(name).is_file():
            yield f"{field}: there is no file {name}"
    if found.kind == "edge" and found.value.name != "edge" and not found.value.shares:
        yield f"name: handler {found.value.name} needs shares = true"


def _named_files(found: Recognised) -> Iterator[tuple[str, str]]:
    broker: Broker = found.broker
    tls = {} if broker.tls is None else {f"broker.tls.{name}": getattr(broker.tls, name) for name in _TLS}
    own = {name: getattr(found.value, name, None) for name in _FILES}
    release = getattr(found.value, "release", None)
    named = tls | own | {
        "broker.password_file": broker.password_file,
        "release.signing_key": getattr(release, "signing_key", None),
    }  # fmt: skip
    yield from ((field, name) for field, name in named.items() if name is not None)


_TLS = ("ca", "certificate", "key")
