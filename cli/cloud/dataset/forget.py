"""Take photos out of the dataset for good: from its older versions, caches and dead letters, too.

Edge nodes forget them as well: each gets an order, which waits at the broker for one that is away. What stays
is the id of each photo with two times, and for a camera, a node or a time the moment up to which its samples
are kept out, so that nothing comes back; that holds for what a device still has in its outbox. Models that
were trained on the photos stay as they are, and cannot be trained again exactly. Exports, backups and reports
that were made before are not changed: delete them (docs/datasets.md has the list).
"""

import asyncio
import sys
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from bus import log
from bus.mqtt.errors import BrokerConnectionError, PublishRefusedError
from bus.mqtt.presence import now_ms
from cli import connect, options, run_service
from cli.cloud.dataset.selection import add_selection, selection, unknown_class
from cli.cloud.known_nodes import READ_S
from cli.fleet import Fleet, nodes_of
from cli.output import print_line
from schemas.errors import PermanentError, TransientError, first_cause
from schemas.text import listed
from schemas.topics import FORGET

if TYPE_CHECKING:
    from cloud.dataset.curation import Forgotten, Selection
    from cloud.dataset.store import Store
    from cloud.rollout.forget_orders import Reach
    from schemas.messages import Forget, Status


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    options.add_dataset(parser)
    add_selection(parser)
    parser.add_argument("--all", action="store_true", help="every photo, if nothing else is given")
    parser.add_argument("--dry-run", action="store_true", help="print how many, and change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--by", type=options.person, default="reviewer", help="name of the person (reviewer)")
    parser.add_argument(
        "--no-edges", action="store_true", help="in the cloud alone, for example because no broker runs"
    )
    parser.add_argument(
        "--wait",
        metavar="S",
        type=options.at_least_0(float),
        default=5.0,
        help="longest wait until the edges have forgotten the photos, in seconds (5)",
    )
    options.add_features(parser)
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Ask, and forget the selected photos."""
    from cloud.dataset.curation import Selection, find_photos  # noqa: PLC0415  # each command loads only what it needs
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above
    from cloud.rollout.forget_orders import Reach, reach  # noqa: PLC0415  # as above

    log.configure("error")
    chosen = selection(arguments)
    if chosen == Selection() and not arguments.all:
        raise PermanentError("no photos are selected", hint="name some, or use --device, --before or --all")
    store = Store.open(arguments.dataset, create=False)
    ids = find_photos(store, chosen)
    meant = Reach() if arguments.no_edges else reach(store, chosen, ids, now_ms())
    if arguments.dry_run or not (ids or meant.everything):
        none = f"no photo is selected{'' if ids else unknown_class(store, arguments.label)}"
        print_line(f"{len(ids)} photos would be forgotten" if ids else none)
        return 0
    if not (arguments.yes or confirmed(len(ids))):
        return 1
    if meant.is_local:
        _forget_in_cloud(arguments, store, chosen, ids)
    else:
        run_service.run(_forget_everywhere(arguments, store, chosen, ids, meant))
    return 0


def _forget_in_cloud(arguments: Namespace, store: "Store", chosen: "Selection", ids: list[str]) -> None:
    from cloud.dataset.change_log import ChangeLog  # noqa: PLC0415  # as above
    from cloud.dataset.curation import forget_ids  # noqa: PLC0415  # as above

    changes = ChangeLog.open(arguments.dataset)
    done = forget_ids(store, changes, ids, arguments.by, detail=str(chosen), still=chosen.fits)
    forget_elsewhere(arguments, done)
    if done.photo_ids:
        print_line("exports, backups and reports from before still have them: delete those too")


async def _forget_everywhere(
    arguments: Namespace, store: "Store", chosen: "Selection", ids: list[str], meant: "Reach"
) -> None:
    """Keep out samples in transit, order the edges to forget, forget in the dataset, and wait for the edges.

    The edges come first: once the dataset has forgotten a photo, its node is no longer known.
    """
    from cloud.dataset.curation import find_late  # noqa: PLC0415  # as above
    from cloud.rollout.forget_orders import publish_orders, read_orders  # noqa: PLC0415  # as above

    bus = connect.bus(arguments, "forget")
    retained, echoes, fleet = bus.subscribe_raw(FORGET.filter), bus.subscribe(FORGET), Fleet(bus)
    try:
        async with connect.connected(arguments, bus):
            statuses = await fleet.read(READ_S)
            known = nodes_of(statuses)
            nodes = [node for node in meant.nodes(known) if node in known]
            await asyncio.to_thread(_record, arguments, store, meant, nodes)
            before = read_orders(retained)
            orders = await publish_orders(bus, echoes, meant, nodes=nodes, statuses=statuses, known=before)
            if meant.everything:  # what arrived before the barrier, and after it was counted
                late = await asyncio.to_thread(find_late, store, chosen, meant.before_ms)
                ids = sorted({*ids, *late})
            await asyncio.to_thread(_forget_in_cloud, arguments, store, chosen, ids)
            if strangers := sorted(set(meant.nodes(known)) - set(known)):
                print_line(f"no order for edges that never reported to this broker: {listed(strangers)}")
            await _wait(arguments.wait, fleet, orders, statuses)
    except* BrokerConnectionError as group:
        cause = first_cause(group)
        kind = PermanentError if isinstance(cause, PublishRefusedError) else TransientError
        raise kind(
            f"the order cannot reach edges: {cause}; or forget in the cloud alone with --no-edges"
        ) from None


def _record(arguments: Namespace, store: "Store", meant: "Reach", nodes: list[str]) -> None:
    from cloud.dataset.change_log import ChangeLog  # noqa: PLC0415  # as above

    told = sorted({photo_id for node in nodes for photo_id in meant.by_node.get(node, ())})
    detail = f"{meant.words}; edges: {', '.join(nodes) or 'none'}"
    ChangeLog.open(arguments.dataset).record("forget-at-edges", arguments.by, detail, told)
    if meant.everything:
        store.keep_out(meant.node, meant.device, meant.before_ms)


async def _wait(wait_s: float, fleet: Fleet, orders: "list[Forget]", statuses: "list[Status]") -> None:
    """Print which edges have forgotten the photos, and which will when they are back."""
    from cloud.rollout.forget_orders import unconfirmed  # noqa: PLC0415  # as above

    deadline = time.monotonic() + wait_s
    left = [order for order in orders if unconfirmed(order, statuses)]
    while left and (remaining_s := deadline - time.monotonic()) > 0:
        statuses = await fleet.read(remaining_s)
        left = [order for order in orders if unconfirmed(order, statuses)]
    waiting = {order.node for order in left}
    if done := [order.node for order in orders if order.node not in waiting]:
        print_line(f"forgotten by {listed(done)}")
    for order in left:
        states = ", ".join(f"{one.name} is {one.state}" for one in unconfirmed(order, statuses))
        print_line(f"not yet by {order.node} ({states}): 'gleaner cloud status' shows when it has")


def forget_elsewhere(arguments: Namespace, done: "Forgotten") -> None:
    """Remove forgotten photos from dead letters and caches too, and print what was done."""
    from cloud.dataset.photo_caches import purge_caches  # noqa: PLC0415  # as above

    letters = _forget_dead_letters(arguments.dataset, done.photo_ids)
    purge_caches(arguments.cache, done.content_ids)
    print_line(f"{len(done.photo_ids)} photos and {letters} dead letters forgotten")
    if done.tags:
        print_line(f"older versions of the dataset are gone: {', '.join(sorted(done.tags))}")


def confirmed(count: int) -> bool:
    """Ask at the terminal.

    Raises:
        PermanentError: There is no terminal.
    """
    if not sys.stdin.isatty():
        raise PermanentError(f"{count} photos would be forgotten for good", hint="confirm it with --yes")
    sys.stdout.write(f"Forget {count} photos for good? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _forget_dead_letters(dataset: str, photo_ids: list[str]) -> int:
    from cloud.dataset.dead_letters import DeadLetterTable  # noqa: PLC0415  # as above

    try:
        letters = DeadLetterTable.open(dataset, create=False)
    except PermanentError:  # there is none
        return 0
    return letters.remove(photo_ids)
