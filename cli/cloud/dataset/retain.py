"""Keep the dataset within a size or an age: forget the oldest photos, as 'gleaner cloud forget' does.

Photos that a person or a device labelled stay unless --labelled is given, and gold photos unless --gold is.
The size is that of the pictures; the other columns take some per cent more. Run it by a timer, with --yes.
Edges are not informed: what they keep is bounded separately.
"""

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from bus.mqtt.presence import now_ms
from cli import options
from cli.cloud.dataset.forget import confirmed, forget_elsewhere
from cli.output import print_line
from schemas.errors import PermanentError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_MAX_BYTES = 2**53
_DAY_MS = 86_400_000


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    options.add_dataset(parser)
    parser.add_argument(
        "--max-size", type=_size, metavar="SIZE", help="bytes of all pictures, such as 50G (10^9) or 800M"
    )
    parser.add_argument(
        "--max-age", type=options.positive(int), metavar="DAYS", help="days since a photo arrived"
    )
    parser.add_argument("--labelled", action="store_true", help="labelled photos may go too")
    parser.add_argument("--gold", action="store_true", help="gold photos may go too")
    parser.add_argument("--dry-run", action="store_true", help="print how many, and change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--by", type=options.person, default="retention", help="name of the person (retention)"
    )
    options.add_features(parser)


def run(arguments: Namespace) -> int:
    """Ask, and forget what is too much."""
    from cloud.dataset.change_log import ChangeLog  # noqa: PLC0415  # each command loads only what it needs
    from cloud.dataset.curation import Retention, find_excess, forget_ids  # noqa: PLC0415  # as above
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above

    if arguments.max_size is None and arguments.max_age is None:
        raise PermanentError("no limit is given", hint="use --max-size, --max-age or both")
    store = Store.open(arguments.dataset, create=False)
    retention = Retention(
        max_bytes=arguments.max_size,
        before_ms=None if arguments.max_age is None else now_ms() - arguments.max_age * _DAY_MS,
        labelled=arguments.labelled,
        gold=arguments.gold,
    )
    excess = find_excess(store, retention)
    count, left_mb = len(excess.photo_ids), excess.left_bytes / 1e6
    if count:
        does = "would be forgotten" if arguments.dry_run else "are too much"
        print_line(f"{count} photos of {excess.going_bytes / 1e6:.1f} MB {does}; {left_mb:.1f} MB are kept")
    else:
        print_line(f"nothing to forget; {left_mb:.1f} MB are kept")
    if arguments.max_size is not None and excess.left_bytes > arguments.max_size:
        print_line("the photos that are kept exceed the size: they are labelled or gold (--labelled, --gold)")
    if arguments.dry_run or not count:
        return 0
    if not (arguments.yes or confirmed(count)):
        return 1
    log = ChangeLog.open(arguments.dataset)
    done = forget_ids(
        store,
        log,
        excess.photo_ids,
        arguments.by,
        detail=str(retention),
        action="retain",
        still=lambda row: retention.rank(row) is not None,
    )
    forget_elsewhere(arguments, done)
    return 0


def _size(text: str) -> int:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGT]?)B?", text)
    if found is None:
        raise ArgumentTypeError(f"expected bytes such as 50G, 800M or 1000000, got {text!r}")
    size = float(found[1]) * _UNITS[found[2]]
    if size > _MAX_BYTES:  # also infinity, which int() refuses
        raise ArgumentTypeError(f"expected at most {_MAX_BYTES} bytes, got {text!r}")
    return int(size)
