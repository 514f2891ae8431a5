"""Every metric on `/metrics`, and the counters of a Status from which some are computed.

Names follow OpenTelemetry's semantic conventions (as Prometheus writes them) where these have one, otherwise
`gleaner_` with base units. Label values come from the code, never from a message or a device's name, which
bounds the number of series.
"""

import re
from typing import Literal, NamedTuple, get_args

from schemas.lanes import LANES

Kind = Literal["counter", "gauge", "histogram"]
Service = Literal[
    "device", "edge", "collector", "trainer", "rollout", "gateway", "notify", "console", "mirror"
]


class Metric(NamedTuple):
    """One metric.

    Args:
        name: Without the suffix `_total` of a counter.
        kind: Type in Prometheus' sense.
        meaning: Its help text.
        services: The services that have it.
        labels: Names of its labels.
        values: The values of its labels, one tuple for each series; others are not exported. Counters start
            at 0 with these, so that a first event is an increase.
    """

    name: str
    kind: Kind
    meaning: str
    services: tuple[Service, ...]
    labels: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] = ((),)

    @property
    def shown_name(self) -> str:
        """The name of its series."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


class Counted(NamedTuple):
    """Counters of a Status that a metric adds up: the groups of the pattern are the values of its labels."""

    metric: Metric
    pattern: re.Pattern[str]


def _each(*values: str) -> tuple[tuple[str], ...]:
    return tuple((value,) for value in values)


_ALL: tuple[Service, ...] = get_args(Service)
_ON_A_BROKER: tuple[Service, ...] = tuple(one for one in _ALL if one != "mirror")
_SENDERS: tuple[Service, ...] = ("device", "edge", "console")
DURATION_BOUNDS_S = (0.05, 0.1, 0.25, 1.0, 5.0)
"""Upper bounds of the buckets of a duration, in seconds."""

TARGET_INFO = Metric(
    "target_info",
    "gauge",
    "1; node (or cloud), name and software version of the service",
    _ALL,
    ("service_namespace", "service_name", "service_version"),
)
READY = Metric("gleaner_ready", "gauge", "1 if /readyz answers 200, 0 if a part is degraded", _ALL)
CONSUMED = Metric(
    "messaging_client_consumed_messages",
    "counter",
    "photos (edge) or samples (collector) received",
    ("edge", "collector"),
)
RESULTS = Metric(
    "gleaner_results",
    "counter",
    "results published",
    ("edge",),
    ("status",),
    _each("ok", "rejected", "deferred"),
)
PROCESS_DURATION = Metric(
    "messaging_process_duration_seconds",
    "histogram",
    "time from the arrival of a photo to its published result",
    ("edge",),
)
IN_FLIGHT = Metric("gleaner_photos_in_flight", "gauge", "photos received and not answered", ("edge",))
HARVESTED = Metric(
    "gleaner_harvested_photos", "counter", "photos selected as samples", ("edge",), ("lane",), _each(*LANES)
)
HARVEST_REFUSALS = Metric("gleaner_harvest_refusals", "counter", "photos not selected as samples", ("edge",))
MODEL_FAILURES = Metric(
    "gleaner_model_call_failures", "counter", "calls to the model server that failed", ("edge",)
)
MODEL_VERSION = Metric("gleaner_model_version", "gauge", "version in service; 0 if none is", ("edge",))
WRONG_CLOCKS = Metric("gleaner_wrong_clocks", "gauge", "devices whose clock is wrong", ("edge",))
OUTBOX_EVENTS = Metric(
    "gleaner_outbox_messages",
    "counter",
    "messages of the outbox: accepted, resent, answered; refused or dropped because it is full",
    _SENDERS,
    ("event",),
    _each("accepted", "resent", "answered", "refused", "dropped"),
)
OUTBOX_UNANSWERED = Metric(
    "gleaner_outbox_unanswered_messages", "gauge", "messages in the outbox", _SENDERS, ("outbox",)
)
OUTBOX_UTILIZATION = Metric(
    "gleaner_outbox_utilization_ratio",
    "gauge",
    "share of the outbox in use, by bytes or messages, whichever is larger",
    _SENDERS,
    ("outbox",),
)
OUTBOX_OLDEST = Metric(
    "gleaner_outbox_oldest_seconds",
    "gauge",
    "age of the oldest message in the outbox; 0 if empty",
    _SENDERS,
    ("outbox",),
)
PHOTOS_REFUSED = Metric(
    "gleaner_photos_refused", "counter", "photos that the device could not keep in its outbox", ("device",)
)
CAMERA_FAILURES = Metric("gleaner_camera_failures", "counter", "failures of the camera", ("device",))
DISK_FREE = Metric(
    "system_filesystem_usage_bytes",
    "gauge",
    "free bytes of the file system with the state folder",
    (*_SENDERS, "mirror"),
    ("system_filesystem_state",),
)
DISCONNECTIONS = Metric(
    "gleaner_broker_disconnections", "counter", "connections to the broker that ended", _ON_A_BROKER
)
BROKER_DROPS = Metric(
    "gleaner_broker_dropped_messages",
    "counter",
    "messages that the broker dropped, by its own count; absent if it does not publish one",
    ("edge", "collector"),
)
CERTIFICATE_END = Metric(
    "gleaner_certificate_not_after_seconds",
    "gauge",
    "when a certificate ends, in seconds since 1970; absent without TLS",
    _ON_A_BROKER,
    ("certificate",),
    _each("client", "ca"),
)
SERVER_CERTIFICATE_END = Metric(
    "gleaner_server_certificate_not_after_seconds",
    "gauge",
    "when the certificate of the server ends, in seconds since 1970; absent without HTTPS",
    ("console", "mirror"),
    ("certificate",),
    _each("server"),
)
SAMPLES = Metric(
    "gleaner_samples",
    "counter",
    "samples answered, by the status of the receipt",
    ("collector",),
    ("status",),
    _each("stored", "duplicate", "refused"),
)
SAMPLES_WAITING = Metric(
    "gleaner_samples_waiting",
    "gauge",
    "samples received and not answered; 1024 when it is full",
    ("collector",),
)
LABELS = Metric(
    "gleaner_labels",
    "counter",
    "labels from people and devices",
    ("collector",),
    ("outcome",),
    _each("recorded", "refused", "expired"),
)
DATASET_FAILURES = Metric(
    "gleaner_dataset_write_failures", "counter", "failed writes, which are repeated", ("collector",)
)
ROUNDS = Metric(
    "gleaner_rounds",
    "counter",
    "training rounds that ended",
    ("trainer",),
    ("outcome",),
    _each("finished", "failed"),
)
AWAITING_LABEL = Metric(
    "gleaner_photos_awaiting_label",
    "gauge",
    "samples of lanes hard and audit without a human label",
    ("trainer",),
)
LABELS_MISSING = Metric(
    "gleaner_labels_missing", "gauge", "labels that are missing until the next round starts", ("trainer",)
)
DRIFT_ALARM = Metric("gleaner_drift_alarm", "gauge", "1 while new photos look different", ("trainer",))
AUDIT_ACCURACY = Metric(
    "gleaner_audit_accuracy_ratio",
    "gauge",
    "share of right answers of the version in service by audits: at all devices, and at the group of devices"
    " where it is lowest; absent below 20 audits",
    ("trainer",),
    ("devices",),
    _each("all", "worst_group"),
)
GATEWAY_MESSAGES = Metric(
    "gleaner_gateway_messages",
    "counter",
    "messages through the gateway, up to the cloud or down to the edges",
    ("gateway",),
    ("direction", "outcome"),
    (
        *(("up", outcome) for outcome in ("accepted", "full", "timed_out", "malformed", "unknown")),
        *(("down", outcome) for outcome in ("sent", "failed", "refused", "malformed", "dropped", "expired")),
    ),
)
NOTIFICATIONS = Metric(
    "gleaner_notifications",
    "counter",
    "messages to people, by receiver: sent, given up after retries, or dropped while it fails",
    ("notify",),
    ("outcome",),
    _each("sent", "failed", "dropped"),
)
LABELS_UNRECORDED = Metric(
    "gleaner_labels_unrecorded",
    "gauge",
    "labels that people gave and no collector has recorded yet, also those that can be taken back",
    ("console",),
)
OPEN_PAGES = Metric("gleaner_open_pages", "gauge", "pages that follow what happens", ("console",))
MIRROR_FETCHES = Metric(
    "gleaner_mirror_fetches",
    "counter",
    "bundles fetched from an origin, by how that ended",
    ("mirror",),
    ("outcome",),
    _each("fetched", "failed"),
)
MIRROR_BYTES = Metric(
    "gleaner_mirror_fetched_bytes", "counter", "bytes of bundles that came from an origin", ("mirror",)
)
MIRROR_REFUSALS = Metric(
    "gleaner_mirror_refused_clients", "counter", "requests without the certificate of an edge", ("mirror",)
)
_PROCESS = (
    Metric("process_cpu_seconds", "counter", "CPU time", _ALL),
    Metric("process_resident_memory_bytes", "gauge", "memory in use", _ALL),
    Metric("process_open_fds", "gauge", "open file descriptors", _ALL),
    Metric("process_start_time_seconds", "gauge", "start, in seconds since 1970", _ALL),
)
PROCESS_NAMES = frozenset(metric.name for metric in _PROCESS)

METRICS: tuple[Metric, ...] = (
    TARGET_INFO,
    READY,
    CONSUMED,
    RESULTS,
    PROCESS_DURATION,
    IN_FLIGHT,
    HARVESTED,
    HARVEST_REFUSALS,
    MODEL_FAILURES,
    MODEL_VERSION,
    WRONG_CLOCKS,
    OUTBOX_EVENTS,
    OUTBOX_UNANSWERED,
    OUTBOX_UTILIZATION,
    OUTBOX_OLDEST,
    PHOTOS_REFUSED,
    CAMERA_FAILURES,
    DISK_FREE,
    DISCONNECTIONS,
    BROKER_DROPS,
    CERTIFICATE_END,
    SERVER_CERTIFICATE_END,
    SAMPLES,
    SAMPLES_WAITING,
    LABELS,
    DATASET_FAILURES,
    ROUNDS,
    AWAITING_LABEL,
    LABELS_MISSING,
    DRIFT_ALARM,
    AUDIT_ACCURACY,
    GATEWAY_MESSAGES,
    NOTIFICATIONS,
    LABELS_UNRECORDED,
    OPEN_PAGES,
    MIRROR_FETCHES,
    MIRROR_BYTES,
    MIRROR_REFUSALS,
    *_PROCESS,
)

COUNTED: tuple[Counted, ...] = tuple(
    Counted(metric, re.compile(pattern))
    for metric, pattern in (
        (CONSUMED, r"photo\.received|sample\.received"),
        (RESULTS, r"result\.(ok|rejected|deferred)"),
        (HARVESTED, r"harvest\.(auto|hard|audit|feedback)"),
        (HARVEST_REFUSALS, r"harvest\.refused_.+"),
        (MODEL_FAILURES, r"predict\.failed"),
        (
            OUTBOX_EVENTS,
            r"(?:photo|sample|label)\.(accepted|resent|answered|refused(?=_)|dropped(?=_))(?:_disk_full|_outbox_full|_oldest)?",
        ),
        (PHOTOS_REFUSED, r"photo\.refused"),
        (CAMERA_FAILURES, r"camera\.failed"),
        (DISCONNECTIONS, r"bus\.disconnected"),
        (SAMPLES, r"sample\.(stored|duplicate|refused)"),
        (LABELS, r"feedback\.(recorded|refused|expired)"),
        (DATASET_FAILURES, r"dataset\.write_failed"),
        (ROUNDS, r"round\.(finished|failed)"),
        (NOTIFICATIONS, r"notification\.(sent|failed|dropped)"),
        (MIRROR_FETCHES, r"bundle\.(fetched|failed)"),
        (MIRROR_BYTES, r"bundle\.fetched_bytes"),
        (MIRROR_REFUSALS, r"client\.refused"),
        (GATEWAY_MESSAGES, r"(up|down)\.[a-z]+\.([a-z_]+)"),
    )
)


def most_series(service: Service) -> int:
    """Return the most series that `/metrics` of a service has."""
    per_histogram = len(DURATION_BOUNDS_S) + 3  # the bucket without a bound, sum and count
    return sum(
        per_histogram if metric.kind == "histogram" else len(metric.values)
        for metric in METRICS
        if service in metric.services
    )


_NAMES = {_ALL: "all", _ON_A_BROKER: "all but mirror"}


def table() -> str:
    """Return all metrics as a Markdown table."""
    rows = ["| metric | type | labels | services | meaning |", "|---|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        services = _NAMES.get(metric.services) or ", ".join(metric.services)
        rows.append(f"| `{metric.shown_name}` | {metric.kind} | {labels} | {services} | {metric.meaning} |")
    return "\n".join(rows) + "\n"
