"""Release a version to edge nodes, and wait until they serve it."""

import asyncio
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bus import log
from bus.mqtt.connection.connection import BrokerConnectionError
from cli import connect, options, run_service
from cli.cloud.known_nodes import add_any_node, check_nodes
from cli.fleet import Fleet
from cli.output import print_error, print_line
from schemas.errors import PermanentError
from schemas.field_types import ModelName
from schemas.messages import Release
from schemas.text import listed

if TYPE_CHECKING:
    from cloud.registry.registry import Bundle


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the .tar of the version")
    parser.add_argument(
        "--nodes", type=options.nodes, default="edge-1", help="comma-separated edge nodes (edge-1)"
    )
    add_any_node(parser)
    add_model(parser)
    parser.add_argument(
        "--wait",
        metavar="S",
        type=options.positive(float),
        help="wait up to S seconds until all nodes serve it",
    )
    add_signing(parser)
    options.add_broker(parser)


def add_model(parser: ArgumentParser) -> None:
    """Declare the options of the released model."""
    parser.add_argument(
        "--model", type=_model, default="pets", help="name of the model on the model server (pets)"
    )
    parser.add_argument(
        "--url",
        help="URL where the nodes fetch it: file, http, https or s3, with {version} for its number "
        "(the bundle's path)",
    )


def add_signing(parser: ArgumentParser) -> None:
    """Declare the options for signing, and for releasing without a promotion."""
    parser.add_argument(
        "--signing-key", metavar="PEM", type=Path, help="key to sign the release with (unsigned)"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="release it even if the gate did not promote it, or it was rolled back",
    )


def run(arguments: Namespace) -> int:
    """Publish the releases; with --wait, fail if a node does not serve the version in time."""
    from cloud.registry.registry import read_bundle  # noqa: PLC0415  # each step loads what it needs, and no more
    from cloud.rollout.releases import release_of  # noqa: PLC0415  # as above
    from cloud.rollout.runner import check_promoted, signer  # noqa: PLC0415  # as above

    log.configure("error")
    bundle = read_bundle(arguments.bundle)
    forced: str | None = None
    try:
        check_promoted(bundle)
    except PermanentError as error:
        if not arguments.force:
            raise
        forced = f"released by force: {error.subject}{_before_rollouts(bundle)}"
    sign = signer(arguments.signing_key)
    made = (release_of(bundle, node, arguments.model, arguments.url) for node in arguments.nodes)
    releases = [options.checked(release) for release in made]  # all valid before one is published
    run_service.run(_announce(arguments, releases, sign))
    if forced is not None:
        print_error(forced)
    return 0


async def _announce(
    arguments: Namespace, releases: list[Release], sign: Callable[[Release], Release]
) -> None:
    from cloud.rollout.releases import Announcer  # noqa: PLC0415  # as above

    nodes, version = arguments.nodes, releases[0].version
    bus = connect.bus(arguments, "release")
    announcer, fleet = Announcer(bus, nodes), Fleet(bus)
    async with connect.connected(arguments, bus):
        await check_nodes(fleet, nodes, any_node=arguments.any_node)
        await announcer.announce(releases, sign)
        print_line(f"version {version} released to {listed(nodes)}")
        if arguments.wait is None:
            return
        missing = set(nodes)
        try:
            async with asyncio.timeout(arguments.wait):
                async for node in announcer.served(version):
                    missing.discard(node)
                    print_line(f"{node} serves version {version}")
        except TimeoutError:
            heard = "; ".join(f"{node}: {announcer.last_heard(node)}" for node in sorted(missing))
            raise BrokerConnectionError(
                f"{', '.join(sorted(missing))} did not report version {version} within {arguments.wait:g} s"
                f" ({heard})",
                hint="look at its log and at 'gleaner cloud status'",
            ) from None


def _before_rollouts(bundle: "Bundle") -> str:
    """Return what to do before the next rollout, which compares its version with the champion."""
    if bundle.card.parent is None:
        return ""
    champion = bundle.path.with_name(f"{bundle.card.parent}.tar")
    return f"; nodes can try another version in a rollout after 'gleaner cloud release {champion}'"


def _model(text: str) -> str:
    try:
        return msgspec.convert(text, ModelName)
    except msgspec.ValidationError:
        expected = "a model name of letters, digits and inner . _ -"
        raise ArgumentTypeError(f"expected {expected}, got {text!r}") from None
