from collections import Counter

import pytest

from bus.observability import metric_catalogue as catalogue
from cli.catalogue import counters

SERVICES = ("device", "edge", "collector", "trainer", "rollout", "gateway", "notify", "console")


@pytest.mark.parametrize("service", SERVICES)
def test_g3_a_service_has_at_most_forty_series(service):
    """G3: after any events, `/metrics` of a service stays below 41 series."""
    assert 8 < catalogue.most_series(service) <= 40


def test_names_are_unique_and_in_base_units():
    """A name occurs once; durations are in seconds and sizes in bytes."""
    assert max(Counter(metric.name for metric in catalogue.METRICS).values()) == 1
    assert not [
        metric.name
        for metric in catalogue.METRICS
        if metric.name.endswith(("_ms", "_s", "_mb", "_percent", "_total"))
    ]


def test_each_counted_metric_has_counters_in_the_code():
    """A pattern that matches no counter of the catalogue is a metric that stays 0 forever."""
    names = {one.name.replace("….", "photo.").replace("…", "ok") for one in counters()}
    shown = names | {
        "photo.answered", "photo.resent", "harvest.auto", "harvest.refused_ok", "sample.stored",
        "round.finished",
    }  # fmt: skip
    for metric, pattern in catalogue.COUNTED:
        assert any(pattern.fullmatch(name) for name in shown), metric.name


@pytest.mark.parametrize(
    ("name", "metric", "labels"),
    [
        ("result.rejected", catalogue.RESULTS, ("rejected",)),
        ("photo.refused", catalogue.PHOTOS_REFUSED, ()),
        ("photo.refused_outbox_full", catalogue.OUTBOX_EVENTS, ("refused",)),
        ("sample.dropped_oldest", catalogue.OUTBOX_EVENTS, ("dropped",)),
        ("label.answered", catalogue.OUTBOX_EVENTS, ("answered",)),
        ("sample.refused", catalogue.SAMPLES, ("refused",)),
        ("harvest.refused_cap-per-day", catalogue.HARVEST_REFUSALS, ()),
        ("up.sample.delivered", catalogue.GATEWAY_MESSAGES, ("up", "delivered")),
        ("photo.answered_again", None, None),
    ],
)
def test_a_counter_belongs_to_at_most_one_metric(name, metric, labels):
    """The groups of the pattern are the values of the labels."""
    found = [
        (one, match.groups()) for one, pattern in catalogue.COUNTED if (match := pattern.fullmatch(name))
    ]
    assert found == ([] if metric is None else [(metric, labels)])


def test_every_metric_is_in_the_table():
    """The reference shows the names of the series, with `_total` for counters."""
    assert all(f"| `{metric.shown_name}` |" in catalogue.table() for metric in catalogue.METRICS)
    assert "`gleaner_results_total`" in catalogue.table()
