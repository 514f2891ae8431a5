"""Judge the statuses that components report: plain functions without I/O."""

from collections.abc import Iterable, Sequence

from bus.diagnosis.finding import Finding, failed, passed
from bus.diagnosis.sentence import Sentence
from bus.diagnosis.time_units import wrong_unit
from bus.mqtt.presence import now_ms
from schemas.messages import Status
from schemas.topics import HANDLERS

STALE_S = 60
"""Age in seconds from which a status is stale; a running component publishes one every 15 s."""

_CLOCK_S = 5
_READ_LOG = Sentence("read its log, and follow its status with 'gleaner tail status/#'")
_STATES = {
    "online": Sentence("online"),
    "degraded": Sentence("degraded"),
    "offline": Sentence("offline"),
}

_REJECTION_WORDS = (
    "refused",
    "rejected",
    "shed",
    "dropped",
    "overflowed",
    "malformed",
    "misnamed",
    "unmatched",
)
"""Parts of the names of counters that count messages which were not accepted."""


def status_finding(subject: str, status: Status, start: str) -> Finding:
    """Judge the last status of a component.

    Args:
        subject: What reports it.
        status: The retained one.
        start: What to do if it is offline.
    """
    age_s = (now_ms() - status.at_ms) / 1000
    found = Sentence(
        "%(state)s, gleaner %(software)s, reported %(seconds)s s ago",
        state=_STATES.get(status.state, status.state),
        software=status.software,
        seconds=round(age_s),
    )
    if age_s < -_CLOCK_S:
        ahead = Sentence("its clock is %(seconds)s s ahead of this machine's", seconds=round(-age_s))
        clocks = Sentence("set the clocks of both machines, for example with systemd-timesyncd")
        return failed(subject, ahead, clocks)
    if status.reason:
        found = Sentence("%(found)s: %(reason)s", found=found, reason=status.reason)
    flaps = status.counters.get("bus.flapping", 0) - status.counters.get("bus.settled", 0)
    if status.state == "online" and flaps > 0:
        found = Sentence(
            "%(found)s; it lost its connection again and again (%(flaps)s times)", found=found, flaps=flaps
        )
        return failed(
            subject,
            found,
            Sentence("is a second one of the same name running? Stop it; otherwise check the network"),
        )
    advice = start if status.state == "offline" else _READ_LOG
    return Finding(status.state == "online" and age_s < STALE_S, subject, found, advice)


def handler_finding(status: Status) -> Finding:
    """Judge the status of an edge handler."""
    return status_finding(Sentence("edge %(node)s", node=status.node), status, start_of_edge(status.node))


def start_of_edge(node: str) -> str:
    """Return what to do about an edge that is offline."""
    return Sentence("start it with 'gleaner edge --node %(node)s'", node=node)


def component_finding(status: Status) -> Finding:
    """Judge the status of a component other than an edge handler."""
    names = {"node": status.node, "name": status.name}
    retire = Sentence("start it, or remove it for good: gleaner cloud retire %(node)s.%(name)s", **names)
    return status_finding(Sentence("%(name)s of %(node)s", **names), status, retire)


def model_finding(status: Status | None) -> Finding:
    """Judge whether the model server of an edge serves a model, from its status."""
    model = None if status is None else status.model
    if model is None:
        return failed(
            "model",
            Sentence("none reported by the edge"),
            Sentence("wait for its next status and try again"),
        )
    if model.state == "available":
        return passed("model", f"{model.name} version {model.version} is served")
    return failed(
        "model",
        Sentence(
            "%(model)s is %(state)s: %(reason)s",
            model=model.name,
            state=model.state,
            reason=model.reason or Sentence("no reason given"),
        ),
        Sentence(
            "start 'gleaner modelserver', check the edge's --serving, release with 'gleaner cloud release'"
        ),
    )


def refused_finding(status: Status | None) -> Finding:
    """Report the counters of messages that an edge did not accept; never a failure."""
    # That limits are enforced is what they are for.
    counters = {} if status is None else status.counters
    counted = [
        f"{name} {count}"
        for name, count in sorted(counters.items())
        if count and any(word in name for word in _REJECTION_WORDS)
    ]
    return passed("refused", f"{', '.join(counted)} since the edge started" if counted else "nothing")


def clocks_finding(status: Status | None) -> Finding | None:
    """Report the devices whose clock is wrong, as the edge sees it; None if it knows of none."""
    offsets = {} if status is None else status.clock_offsets_s
    wrong = [f"{device} {_describe_clock(offset_s)}" for device, offset_s in sorted(offsets.items())]
    # Never a failure: the edge judges the age of photos by their arrival.
    return passed("clocks", ", ".join(wrong)) if wrong else None


def _describe_clock(offset_s: float) -> str:
    now = now_ms()
    if (unit := wrong_unit(now - round(offset_s * 1000), now)) is not None:
        return f"sends times in {unit} instead of milliseconds"
    return f"{abs(offset_s):.0f} s {'behind' if offset_s > 0 else 'ahead'}"


def dataset_finding(statuses: Iterable[Status]) -> Finding | None:
    """Judge whether all components of the cloud use one dataset; None if none reports where it is."""
    places: dict[str, list[str]] = {}
    for status in statuses:
        if status.dataset is not None and status.state != "offline":
            places.setdefault(status.dataset, []).append(status.name)
    if not places:
        return None
    found = "; ".join(f"{', '.join(sorted(names))}: {place}" for place, names in sorted(places.items()))
    advice = Sentence(
        "start them with the same --dataset; mount a folder that they share at one path everywhere"
    )
    return Finding(len(places) == 1, Sentence("dataset"), found, advice)


def fleet_findings(statuses: Sequence[Status]) -> list[Finding]:
    """Judge the last status of every component, and the models of the edges; sorted by node and name."""
    findings = []
    for status in sorted(statuses, key=lambda one: (one.node, one.name)):
        if status.name not in HANDLERS:
            findings.append(component_finding(status))
            continue
        findings.append(handler := handler_finding(status))
        model = model_finding(status)
        if handler.passed and not model.passed:
            subject = Sentence("model of %(node)s", node=status.node)
            findings.append(Finding(model.passed, subject, model.found, model.advice))
    dataset = dataset_finding(statuses)
    if dataset is not None and not dataset.passed:
        findings.append(dataset)
    return findings
