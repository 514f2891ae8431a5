"""Tell edge nodes to serve a version, and see it arrive."""

import asyncio
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

import msgspec

from bus import log
from bus.mqtt import LinkError
from cli import link, options, service
from schemas.errors import PermanentError
from schemas.messages import ModelName, Release


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the .tar that train wrote")
    parser.add_argument(
        "--nodes", type=options.names, default="edge-1", help="comma-separated edge nodes (edge-1)"
    )
    parser.add_argument("--model", type=_model, default="pets", help="name of the model there (pets)")
    parser.add_argument(
        "--url", help="where the nodes fetch it: file, http, https or s3 (the bundle's own path)"
    )
    parser.add_argument(
        "--wait", metavar="S", type=options.positive(float), help="wait until all nodes serve it"
    )
    parser.add_argument(
        "--signing-key", metavar="PEM", type=Path, help="sign it, for nodes with a release key (unsigned)"
    )
    parser.add_argument(
        "--force", action="store_true", help="even if the gate's verdict is to keep the champion"
    )
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Announce the version; with --wait, fail if a node does not come to serve it."""
    from bus import signing  # noqa: PLC0415  # each step loads what it needs, and no more
    from cloud.rollout import read_bundle, release_of  # noqa: PLC0415  # as above

    log.configure("error")
    bundle = read_bundle(arguments.bundle)
    gate = bundle.card.gate
    if gate is not None and gate.verdict == "keep" and not arguments.force:
        raise PermanentError(
            f"version {bundle.card.version}",
            expected="a model that may replace the champion, or --force",
            got=f"the verdict keep: {'; '.join(gate.reasons)}",
        )
    releases = [release_of(bundle, node, arguments.model, arguments.url) for node in arguments.nodes]
    if arguments.signing_key is not None:
        signing_key = signing.read_signing_key(arguments.signing_key)
        releases = [signing.sign(release, signing_key) for release in releases]
    service.run(_announce(arguments, releases))
    return 0


async def _announce(arguments: Namespace, releases: list[Release]) -> None:
    from cloud.rollout import Rollout  # noqa: PLC0415  # as above

    nodes, version = arguments.nodes, releases[0].version
    bus = link.bus(arguments, "release")
    rollout = Rollout(bus, nodes)
    async with link.connected(arguments, bus):
        await rollout.announce(releases)
        print(f"version {version} released to {', '.join(nodes)}", flush=True)
        if arguments.wait is None:
            return
        try:
            async with asyncio.timeout(arguments.wait):
                async for node in rollout.served(version):
                    print(f"{node} serves version {version}", flush=True)
        except TimeoutError:
            expected = f"every node to serve version {version} within {arguments.wait:g} s"
            raise LinkError("release", expected=expected, got="no word of some") from None


def _model(text: str) -> str:
    try:
        return msgspec.convert(text, ModelName)
    except msgspec.ValidationError:
        expected = "a model's name of letters, digits and inner . _ -"
        raise ArgumentTypeError(f"expected {expected}, got {text!r}") from None
