"""Roll a version out in stages (shadow, canary, all), group by group; roll it back if it does badly."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from bus import log
from cli import options, run_service
from cli.cloud import release
from cli.output import print_line
from schemas.errors import PermanentError
from schemas.text import listed

if TYPE_CHECKING:
    from cloud.registry.rollout_state import Rollout, Step
    from cloud.rollout.options import RolloutOptions
    from cloud.rollout.state_machine import Decision


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    number, seconds = options.at_least_0(int), options.at_least_0(float)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the .tar of the version")
    parser.add_argument(
        "--champion",
        type=Path,
        metavar="BUNDLE",
        help="the .tar to roll back to (its parent's, in the same folder)",
    )
    parser.add_argument(
        "--nodes",
        type=options.nodes,
        action="append",
        metavar="NAME,NAME",
        help="a group of edge nodes; repeat it for further groups (edge-1)",
    )
    release.add_model(parser)
    parser.add_argument("--champion-url", help="the same for the champion")
    parser.add_argument(
        "--shadow-photos", type=number, help="photos to compare before any canary; 0: none (200)"
    )
    parser.add_argument(
        "--canary-share", type=_shares, metavar="S,S", help="shares of the devices, one stage each (0.1,0.5)"
    )
    parser.add_argument(
        "--canary-photos", type=number, help="photos that it classifies in each canary stage (200)"
    )
    parser.add_argument("--stage-s", type=seconds, help="shortest duration of a stage, in seconds (600)")
    parser.add_argument(
        "--bake-time-s", type=seconds, help="how long it is watched after the last stage, in seconds (3600)"
    )
    parser.add_argument(
        "--node-timeout-s", type=seconds, help="longest wait for nodes that are offline, in seconds (1800)"
    )
    parser.add_argument(
        "--disagreement", type=options.share, help="share of other labels from which it is rolled back (0.2)"
    )
    parser.add_argument(
        "--probes",
        type=options.listen_address,
        metavar="HOST:PORT",
        help="serve /livez, /readyz and /metrics there (not served)",
    )
    options.add_dataset(parser)
    release.add_signing(parser)
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Start a rollout, or continue it; fail if the version is rolled back."""
    from bus import config  # noqa: PLC0415  # each step loads what it needs, and no more
    from cloud.registry.registry import Registry, read_bundle  # noqa: PLC0415  # as above
    from cloud.rollout import runner  # noqa: PLC0415  # as above

    log.configure("error")
    bundle, sign = read_bundle(arguments.bundle), runner.signer(arguments.signing_key)
    broker = options.broker(arguments)
    state = Registry.of_bundle(arguments.bundle).rollout_file(bundle.card.version)
    with state.lock():
        rollout = runner.open_rollout(
            state, bundle, _options(arguments), arguments.champion, again=arguments.force
        )
        if not rollout.announced:
            print_line(f"version {rollout.challenger.version}: {_place(rollout)}; state in {state.path}")
            running = runner.run_rollout(
                state,
                broker,
                config.password(broker),
                sign=sign,
                audits=runner.audit_reader(arguments.dataset, _without_audits),
                on_decision=_print_decision,
                on_connected=lambda: log.configure("warning"),  # until then, the error has it once
                probes=arguments.probes,
            )
            try:
                rollout = run_service.run(running)
            except KeyboardInterrupt:
                print_line("interrupted: the same command continues")
                raise
    runner.check_succeeded(rollout)
    print_line(f"version {rollout.challenger.version} is released to {listed(rollout.reached_nodes)}")
    if rollout.skipped:
        print_line(f"could not try it: {listed(rollout.skipped)}")
    return 0


def _options(arguments: Namespace) -> "RolloutOptions":
    """Return the options that were given; others have their defaults.

    Raises:
        ConfigError: A value is out of its range.
    """
    from cloud.rollout.options import RolloutOptions  # noqa: PLC0415  # as above

    names = (
        "model", "url", "champion_url", "shadow_photos", "canary_photos", "stage_s", "bake_time_s",
        "node_timeout_s", "disagreement", "force",
    )  # fmt: skip
    given = {name: getattr(arguments, name) for name in names}
    given |= {"groups": arguments.nodes, "canary_shares": arguments.canary_share}
    return options.checked(
        RolloutOptions(**{name: value for name, value in given.items() if value is not None})
    )


def _without_audits(error: PermanentError) -> None:
    print_line(f"without audits: {error}")


def _print_decision(rollout: "Rollout", decision: "Decision") -> None:
    outcome = f", now {_place(rollout)}" if rollout.phase == "running" else ""
    print_line(f"{decision.action}: {decision.reason}{outcome}")


def _place(rollout: "Rollout") -> str:
    step: Step = rollout.current_step
    nodes = listed(rollout.groups[rollout.group])
    watched = f", watched for {rollout.rules.bake_time_s:g} s" if rollout.is_baking else ""
    return f"group {rollout.group + 1} of {len(rollout.groups)} ({nodes}): {step}{watched}"


def _shares(text: str) -> list[float]:
    shares = [options.share(part) for part in text.split(",") if part]
    if 0 in shares:
        raise ArgumentTypeError(f"expected shares above 0, got {text!r}")
    return shares
