"""Run a rollout or a first release from its options, for the command and the retraining loop."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from bus.config import Broker
from bus.health import HealthServer
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence, now_ms
from bus.mqtt.session import connected
from bus.observability.exposition import Exposition
from bus.observability.measurements import certificate_measurements
from bus.security import signing
from cloud.dataset.store import Store
from cloud.evaluation.audit_stats import RolloutAudits
from cloud.evaluation.live_accuracy import rollout_audits
from cloud.registry.registry import Bundle, Registry, read_bundle
from cloud.registry.rollout_state import Rollout, RolloutFile
from cloud.rollout.controller import NAME, Controller
from cloud.rollout.options import RolloutOptions, new_rollout
from cloud.rollout.releases import Announcer, release_of
from cloud.rollout.state_machine import Decision
from schemas.errors import PermanentError
from schemas.messages import Release
from schemas.topics import CLOUD

log = structlog.get_logger()


def check_promoted(bundle: Bundle) -> None:
    """Raise if the gate did not promote a version, or if its rollout was rolled back.

    Raises:
        PermanentError: With the gate's reasons, or the reason of the rollback.
    """
    card = bundle.card
    verdict = card.verdict
    if verdict is not None and verdict.decision != "promote":
        reasons = "; ".join(verdict.reasons)
        raise PermanentError(
            f"the gate did not promote version {card.version}: {verdict.decision}: {reasons}",
            hint="use --force to release it anyway",
        )
    # Not in the card of a bundle, which is immutable.
    rollout = Registry.of_bundle(bundle.path).rollout_file(card.version).read()
    if rollout is not None and rollout.phase == "returned":
        raise PermanentError(
            f"version {card.version} was rolled back: {rollout.reason}",
            hint="use --force to release it anyway",
        )


def signer(key: str | Path | None) -> Callable[[Release], Release]:
    """Return the function that signs a release; without a key it returns the release unsigned.

    Args:
        key: PEM file.

    Raises:
        ConfigError: The key cannot be used.
    """
    if key is None:
        return lambda release: release
    return partial(signing.sign, key=signing.read_signing_key(Path(key)))


def open_rollout(
    state: RolloutFile,
    challenger: Bundle,
    options: RolloutOptions,
    champion: Path | None = None,
    *,
    again: bool = False,
) -> Rollout:
    """Read the rollout from its state file, or start a new one and write it. The caller holds the lock.

    Args:
        state: The state file.
        challenger: Bundle to roll out.
        options: Nodes, stages and rules; ignored if the rollout has started already.
        champion: Bundle to roll back to; by default the challenger's parent, from the same registry.
        again: Restart a rollout that was rolled back.

    Raises:
        PermanentError: The gate did not promote the challenger, or there is no champion to roll back to.
    """
    rollout = state.read()
    is_over = rollout is not None and rollout.phase == "returned" and rollout.announced
    if rollout is None or (again and is_over):
        if not options.force:
            check_promoted(challenger)
        if champion is None:
            baseline = Registry.of_bundle(challenger.path).parent_bundle(challenger)
        else:
            baseline = read_bundle(champion)
        rollout = new_rollout(options, challenger, baseline, now_ms())
        state.write(rollout)
    return rollout


def audit_reader(
    dataset: str, on_error: Callable[[PermanentError], None]
) -> Callable[[Rollout], RolloutAudits]:
    """Return a function that reads the audits of a rollout's versions; empty audits without a dataset.

    Args:
        dataset: Folder or URL of the table.
        on_error: Called once, the first time that the dataset cannot be opened.
    """
    reported = False

    def read(rollout: Rollout) -> RolloutAudits:
        nonlocal reported
        try:
            store = Store.open(dataset, create=False)
        except PermanentError as error:
            if not reported:
                reported = True
                on_error(error)
            return RolloutAudits()
        since_ms = rollout.began_ms or rollout.since_ms  # files of earlier versions have no beginning
        return rollout_audits(store, rollout.champion.version, rollout.challenger.version, since_ms)

    return read


async def run_rollout(
    state: RolloutFile,
    broker: Broker,
    password: str | None,
    *,
    sign: Callable[[Release], Release],
    audits: Callable[[Rollout], RolloutAudits],
    on_decision: Callable[[Rollout, Decision], None] = lambda *_: None,
    on_connected: Callable[[], None] = lambda: None,
    probes: str | None = None,
) -> Rollout:
    """Run a rollout to its end and return the final state. Safe to cancel: the next run continues.

    Args:
        state: The state file; the caller holds its lock.
        broker: The broker of the nodes.
        password: For the broker's user name.
        sign: Signs a release.
        audits: Reads the audits; blocking, called in a thread.
        on_decision: Called with each decision except `wait`.
        on_connected: Called once, when the first connection works.
        probes: HOST:PORT of the health endpoints and metrics; None for none.

    Raises:
        BrokerConnectionError: There is no broker, in an `ExceptionGroup`.
        HealthServerError: The health endpoints cannot be served there, in an `ExceptionGroup`.
    """
    bus = Bus(broker, f"gleaner-{CLOUD}-{NAME}", password=password, presence=Presence(CLOUD, NAME))
    controller = Controller(bus, state, sign=sign, audits=audits, on_decision=on_decision)
    async with connected(bus, broker):
        on_connected()
        async with asyncio.TaskGroup() as tasks:
            health = None
            if probes is not None:
                metrics = Exposition("rollout", bus, partial(certificate_measurements, broker))
                server = HealthServer(probes, bus.unready_reason, metrics.page)
                health = tasks.create_task(server.run(), name="rollout.probes")
            ended = await controller.run()
            bus.finish()  # nobody has to start it again
            if health is not None:
                health.cancel()
    return ended


async def release_version(
    registry: Registry,
    version: int,
    options: RolloutOptions,
    *,
    dataset: str,
    broker: Broker,
    password: str | None,
) -> None:
    """Roll a version out in stages, or release it to all nodes at once if it has no champion.

    Continues a rollout that was interrupted, and does nothing for one that has ended.

    Args:
        registry: The registry of the version.
        version: Its number.
        options: Nodes, stages and rules.
        dataset: Folder or URL of the table with the audits.
        broker: The broker of the nodes.
        password: For the broker's user name.

    Raises:
        PermanentError: The version was rolled back, or cannot be released.
        TransientError: Another rollout is running, or there is no broker.
    """
    bundle, sign = registry.bundle(version), signer(options.signing_key)
    if bundle.card.parent is None:
        if not options.force:
            check_promoted(bundle)
        # No stages: without a champion, nothing could be compared and nothing restored.
        releases = [release_of(bundle, node, options.model, options.url) for node in options.nodes]
        bus = Bus(broker, transient_client_id("release"), password=password)
        announcer = Announcer(bus, options.nodes)
        async with connected(bus, broker):
            await announcer.announce(releases, sign)
        log.info("version.released", version=version, nodes=options.nodes)
        return
    state = registry.rollout_file(version)
    with state.lock():  # held until the end: a second controller would undo the stages of this one
        rollout = open_rollout(state, bundle, options)
        if not rollout.announced:
            audits = audit_reader(dataset, _log_unavailable)
            rollout = await run_rollout(state, broker, password, sign=sign, audits=audits)
    check_succeeded(rollout)


def _log_unavailable(error: PermanentError) -> None:
    log.warning("rollout.audits_unavailable", error=str(error))


def check_succeeded(rollout: Rollout) -> None:
    """Raise if a rollout was rolled back.

    Raises:
        PermanentError: With the reason.
    """
    if rollout.phase == "returned":
        raise PermanentError(f"version {rollout.challenger.version} was rolled back: {rollout.reason}")
