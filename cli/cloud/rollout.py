"""Bring a version out in stages: shadow, canary, all; group by group, and back by itself if it does badly."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bus import log
from cli import options, run_service
from cli.cloud import release
from schemas.errors import PermanentError
from schemas.messages import Release

if TYPE_CHECKING:
    from cloud.evaluation.audit_stats import RolloutAudits
    from cloud.rollout.releases import Bundle
    from cloud.rollout.state_machine import Decision, Rollout, Step


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    number, seconds = options.at_least_0(int), options.at_least_0(float)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the .tar that train wrote")
    parser.add_argument(
        "--champion", type=Path, metavar="BUNDLE", help="what to go back to (its parent, beside it)"
    )
    parser.add_argument(
        "--nodes",
        type=options.names,
        action="append",
        metavar="NAME,NAME",
        help="edge nodes; give it again for the group that follows (edge-1)",
    )
    release.add_model(parser)
    parser.add_argument("--champion-url", help="the same for the champion")
    parser.add_argument(
        "--shadow-photos", type=number, default=200, help="photos to compare before any canary; 0: none (200)"
    )
    parser.add_argument(
        "--canary-share",
        type=_shares,
        default="0.1,0.5",
        metavar="S,S",
        help="shares of the devices, one stage each (0.1,0.5)",
    )
    parser.add_argument(
        "--canary-photos", type=number, default=200, help="photos that it classifies in each of them (200)"
    )
    parser.add_argument("--stage-s", type=seconds, help="shortest duration of a stage, in seconds (600)")
    parser.add_argument(
        "--bake-time-s", type=seconds, help="how long it is watched after the last stage, in seconds (3600)"
    )
    parser.add_argument(
        "--node-timeout-s", type=seconds, help="longest wait for nodes that are offline, in seconds (1800)"
    )
    parser.add_argument(
        "--disagreement", type=options.share, help="share of other labels from which it goes back (0.2)"
    )
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="where it remembers (rollout-VERSION.json beside BUNDLE)"
    )
    options.add_dataset(parser)
    release.add_signing(parser)
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Begin a rollout, or go on with the one that its file keeps; fail if the version goes back."""
    from cloud.rollout import controller  # noqa: PLC0415  # each step loads what it needs, and no more
    from cloud.rollout.releases import read_bundle  # noqa: PLC0415  # as above

    log.configure("error")
    bundle, sign = read_bundle(arguments.bundle), release.signer(arguments)
    path = arguments.state or arguments.bundle.parent / f"rollout-{bundle.card.version}.json"
    with controller.alone(path):
        rollout = controller.read(path)
        if rollout is None:
            rollout = _new(arguments, bundle)
            controller.write(path, rollout)
        if not rollout.announced:
            print(f"version {rollout.challenger.version}: {_place(rollout)}; state in {path}", flush=True)
            ended = run_service.run(_bring_out(arguments, path, sign))
            if ended is None:
                print("interrupted: the same command goes on from here")
                return 0
            rollout = ended
    return _said(rollout)


def _said(rollout: "Rollout") -> int:
    version = rollout.challenger.version
    if rollout.phase == "returned":
        raise PermanentError(
            f"version {version}", expected="to do as well as the champion", got=rollout.reason
        )
    print(f"version {version} is out on {', '.join(rollout.reached_nodes)}")
    return 0


def _new(arguments: Namespace, bundle: "Bundle") -> "Rollout":
    """Return the rollout that the options describe.

    Raises:
        PermanentError: The gate did not promote the version, the champion's bundle is not there, or an option
            makes no sense beside another.
    """
    from bus.mqtt.presence import now_ms  # noqa: PLC0415  # as above
    from cloud.rollout.canary_analysis import Rules  # noqa: PLC0415  # as above
    from cloud.rollout.releases import read_bundle, release_of  # noqa: PLC0415  # as above
    from cloud.rollout.state_machine import Rollout, Step  # noqa: PLC0415  # as above

    if not arguments.force:
        release.check_verdict(bundle.card)
    parent = bundle.card.parent
    if arguments.champion is None and parent is None:
        raise PermanentError(f"version {bundle.card.version}", expected="--champion, or a parent", got="none")
    champion = read_bundle(arguments.champion or arguments.bundle.parent / f"{parent}.tar")
    if champion.card.version == bundle.card.version:
        raise PermanentError("champion", expected="another version", got=f"{champion.card.version} too")
    groups = arguments.nodes or [["edge-1"]]
    if len(set().union(*groups)) < sum(map(len, groups)):
        raise PermanentError("option --nodes", expected="each node in one group", got=groups)
    shadow = [Step(stage="shadow", photos=arguments.shadow_photos)] if arguments.shadow_photos else []
    canaries = [
        Step(stage="canary", share=share, photos=arguments.canary_photos) for share in arguments.canary_share
    ]
    rules = {
        name: getattr(arguments, name)
        for name in ("stage_s", "bake_time_s", "node_timeout_s", "disagreement")
    }
    began_ms = now_ms()
    rollout = Rollout(
        champion=release_of(champion, groups[0][0], arguments.model, arguments.champion_url),
        challenger=release_of(bundle, groups[0][0], arguments.model, arguments.url),
        groups=groups,
        steps=[*shadow, *canaries, Step(stage="all")],
        rules=Rules(**{name: value for name, value in rules.items() if value is not None}),
        since_ms=began_ms,
        began_ms=began_ms,
    )
    return options.checked(rollout)


async def _bring_out(arguments: Namespace, path: Path, sign: Callable[[Release], Release]) -> "Rollout":
    from bus import config  # noqa: PLC0415  # as above
    from bus.mqtt.client import Bus  # noqa: PLC0415  # as above
    from bus.mqtt.presence import Presence  # noqa: PLC0415  # as above
    from cli import connect  # noqa: PLC0415  # as above
    from cloud.rollout.controller import NAME, Controller  # noqa: PLC0415  # as above
    from schemas.topics import CLOUD  # noqa: PLC0415  # as above

    bus = Bus(
        options.broker(arguments),
        f"gleaner-{CLOUD}-{NAME}",
        password=config.password(),
        presence=Presence(CLOUD, NAME),
    )
    controller = Controller(bus, path, sign=sign, audits=_audits(arguments), on_decision=_tell)
    async with connect.connected(arguments, bus):
        log.configure("warning")  # a broker that was never there is said once, by the error
        return await controller.run()


def _audits(arguments: Namespace) -> "Callable[[Rollout], RolloutAudits]":
    """Return how to read the audits; nothing where there is no dataset."""
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above
    from cloud.evaluation.audit_stats import RolloutAudits  # noqa: PLC0415  # as above
    from cloud.evaluation.live_accuracy import rollout_audits  # noqa: PLC0415  # as above

    def read(rollout: "Rollout") -> "RolloutAudits":
        try:
            store = Store.open(arguments.dataset, create=False)
        except PermanentError as error:
            if not told:
                told.append(error)
                print(f"without audits: {error}", flush=True)
            return RolloutAudits()
        since_ms = rollout.began_ms or rollout.since_ms
        return rollout_audits(store, rollout.champion.version, rollout.challenger.version, since_ms)

    told: list[PermanentError] = []
    return read


def _tell(rollout: "Rollout", decision: "Decision") -> None:
    outcome = f", now {_place(rollout)}" if rollout.phase == "running" else ""
    print(f"{decision.action}: {decision.reason}{outcome}", flush=True)


def _place(rollout: "Rollout") -> str:
    step: Step = rollout.current_step
    nodes = ", ".join(rollout.groups[rollout.group])
    watched = f", watched for {rollout.rules.bake_time_s:g} s" if rollout.is_baking else ""
    return f"group {rollout.group + 1} of {len(rollout.groups)} ({nodes}): {step}{watched}"


def _shares(text: str) -> list[float]:
    shares = [options.share(part) for part in text.split(",") if part]
    if 0 in shares:
        raise ArgumentTypeError(f"expected shares above 0, got {text!r}")
    return shares
