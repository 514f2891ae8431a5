"""See and steer the system in a browser, and label photos; `gleaner console user` manages accounts."""

import getpass
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from bus import config, log
from cli import exit_codes, options, run_service
from cli.output import print_line
from schemas.errors import PermanentError

if TYPE_CHECKING:
    from console.config import ConsoleConfig

_ACCOUNTS = "accounts.json"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options; each overrides the configuration file."""
    actions = parser.add_subparsers(dest="action", metavar="user")
    _add_user(actions.add_parser("user", help="add, change or remove accounts", allow_abbrev=False))
    parser.add_argument("--listen", metavar="HOST:PORT", help="address of the pages (127.0.0.1:8765)")
    parser.add_argument("--name", type=options.name, help="console, console-2, … (console)")
    parser.add_argument("--dataset", help=f"folder or URL of the table ({options.DATASET})")
    parser.add_argument("--models", help=f"folder of the model versions ({options.MODELS})")
    parser.add_argument(
        "--cache", metavar="DIR", help=f"embedding cache of the trainings ({options.SHOWN_FEATURES})"
    )
    parser.add_argument("--accounts", metavar="FILE", help="accounts; without it: one-time addresses")
    parser.add_argument("--tls-cert", metavar="PEM", help="HTTPS: certificate of the console")
    parser.add_argument("--tls-key", metavar="PEM", help="HTTPS: its private key")
    options.add_state(parser, "console", "labels to send, the audit trail and thumbnails")
    options.add_service(parser)


def _add_user(parser: ArgumentParser) -> None:
    parser.add_argument("change", choices=["add", "remove", "list"], help="what to do")
    parser.add_argument("person", nargs="?", metavar="NAME", help="of the person, as in labels")
    parser.add_argument(
        "--role", choices=["viewer", "reviewer", "operator"], help="what the person may do (reviewer)"
    )
    parser.add_argument(
        "--accounts",
        type=Path,
        default=Path(_ACCOUNTS),
        metavar="FILE",
        help=f"file of the accounts ({_ACCOUNTS})",
    )


def run(arguments: Namespace) -> int:
    """Run the console until it is stopped by a signal, or change the accounts."""
    if arguments.action == "user":
        return _change_accounts(arguments)
    from console import service  # noqa: PLC0415  # only where the extra is needed

    loaded = _settings(arguments)
    log.configure(arguments.log_level, name=loaded.name)
    os.umask(0o077)  # thumbnails are people's photos
    password = config.password(loaded.broker)
    serving = service.run(loaded, password, lambda address, _: print_line(f"console: {address}"))
    run_service.serve("console", loaded, serving)
    return exit_codes.OK


def _settings(arguments: Namespace) -> "ConsoleConfig":
    from console.config import ConsoleConfig, ServerTls  # noqa: PLC0415  # as above

    tls = None
    if arguments.tls_cert or arguments.tls_key:
        if not (arguments.tls_cert and arguments.tls_key):
            raise PermanentError("option --tls-cert needs --tls-key, and the other way round")
        tls = ServerTls(certificate=arguments.tls_cert, key=arguments.tls_key)
    state = arguments.state_dir
    if state is None and arguments.config is None:
        state = options.default_state("console")
    return options.settings(
        arguments,
        ConsoleConfig,
        name=arguments.name,
        listen=arguments.listen,
        dataset=arguments.dataset,
        models=arguments.models,
        cache=arguments.cache,
        accounts=arguments.accounts,
        state_dir=state,
        tls=tls,
    )


def _change_accounts(arguments: Namespace) -> int:
    from console.access.accounts import Accounts  # noqa: PLC0415  # as above

    accounts = Accounts(arguments.accounts)
    if arguments.change == "list":
        for name, account in sorted(accounts.all().items()):
            print_line(f"{name}  {account.role}")
        return exit_codes.OK
    if not arguments.person:
        raise PermanentError(f"'gleaner console user {arguments.change}' needs the name of a person")
    if arguments.change == "remove":
        accounts.remove(arguments.person)
        print_line(f"removed {arguments.person}; sessions of this person end with the next request")
        return exit_codes.OK
    known = accounts.all().get(arguments.person)
    role = arguments.role or (known.role if known else "reviewer")
    accounts.put(arguments.person, role, _password())
    print_line(f"{arguments.person}: {role}")
    return exit_codes.OK


def _password() -> str:
    """Return a password that is typed twice, or the first line of standard input in a script."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().removesuffix("\n")
    first = getpass.getpass("password: ")
    if first != getpass.getpass("again: "):
        raise PermanentError("the two passwords differ")
    return first
