"""Tell edge nodes to serve a version, and see it arrive."""

import asyncio
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

import msgspec

from bus import log
from bus.mqtt.connection import BrokerConnectionError
from cli import connect, options, run_service
from schemas.messages import ModelName, Release


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the .tar that train wrote")
    parser.add_argument(
        "--nodes", type=options.names, default="edge-1", help="comma-separated edge nodes (edge-1)"
    )
    add_model(parser)
    parser.add_argument(
        "--wait", metavar="S", type=options.positive(float), help="wait until all nodes serve it"
    )
    add_signing(parser)
    options.add_broker(parser)


def add_model(parser: ArgumentParser) -> None:
    """Declare the options that say what is released."""
    parser.add_argument("--model", type=_model, default="pets", help="name of the model there (pets)")
    parser.add_argument(
        "--url", help="where the nodes fetch it: file, http, https or s3 (the bundle's own path)"
    )


def add_signing(parser: ArgumentParser) -> None:
    """Declare the options that make a release one that nodes believe."""
    parser.add_argument(
        "--signing-key", metavar="PEM", type=Path, help="sign it, for nodes with a release key (unsigned)"
    )
    parser.add_argument(
        "--force", action="store_true", help="release it although the gate did not promote it"
    )


def run(arguments: Namespace) -> int:
    """Announce the version; with --wait, fail if a node does not come to serve it."""
    from cloud.registry.registry import read_bundle  # noqa: PLC0415  # each step loads what it needs, and no more
    from cloud.rollout.releases import release_of  # noqa: PLC0415  # as above
    from cloud.rollout.runner import check_promoted, signer  # noqa: PLC0415  # as above

    log.configure("error")
    bundle = read_bundle(arguments.bundle)
    if not arguments.force:
        check_promoted(bundle.card)
    sign = signer(arguments.signing_key)
    made = (release_of(bundle, node, arguments.model, arguments.url) for node in arguments.nodes)
    releases = [sign(options.checked(release)) for release in made]
    run_service.run(_announce(arguments, releases))
    return 0


async def _announce(arguments: Namespace, releases: list[Release]) -> None:
    from cloud.rollout.releases import Announcer  # noqa: PLC0415  # as above

    nodes, version = arguments.nodes, releases[0].version
    bus = connect.bus(arguments, "release")
    announcer = Announcer(bus, nodes)
    async with connect.connected(arguments, bus):
        await announcer.announce(releases)
        print(f"version {version} released to {', '.join(nodes)}", flush=True)
        if arguments.wait is None:
            return
        try:
            async with asyncio.timeout(arguments.wait):
                async for node in announcer.served(version):
                    print(f"{node} serves version {version}", flush=True)
        except TimeoutError:
            expected = f"every node to serve version {version} within {arguments.wait:g} s"
            raise BrokerConnectionError("release", expected=expected, got="no word of some") from None


def _model(text: str) -> str:
    try:
        return msgspec.convert(text, ModelName)
    except msgspec.ValidationError:
        expected = "a model's name of letters, digits and inner . _ -"
        raise ArgumentTypeError(f"expected {expected}, got {text!r}") from None
