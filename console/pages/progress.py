"""Progress: whether the labels are enough."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloud.evaluation.learning_curve import MIN_LABELS, Gain, LearningCurve, Share
from cloud.evaluation.live_accuracy import audit_stats_by_group, audit_stats_by_version
from cloud.registry.model_card import Card
from cloud.registry.registry import newest_promoted
from console.analysis.insights import Insights
from console.context import Console, console_of
from console.web.charts import Bar, Frame, Line, Mark, Point, interval_bars, line_chart
from console.web.languages import N_, translator
from console.web.navigation import Page
from console.web.rendering import percent, render

_MOST_BARS = 12


@dataclass(frozen=True, slots=True)
class _InService:
    """The accuracy of the version in service, and at each group of devices, by audits."""

    version: int
    photos: int
    accuracy: float
    low: float
    high: float
    groups: dict[str, Share]


async def _show(request: Request) -> Response:
    return render(request, "progress.html", await _values(request))


async def _figures(request: Request) -> Response:
    return render(request, "progress/_figures.html", await _values(request))


async def _values(request: Request) -> dict[str, object]:
    console = console_of(request)
    latest = console.insights.latest()
    cards, in_service = await asyncio.to_thread(_versions, console)
    values: dict[str, object] = {
        "insights": latest,
        "problem": console.insights.problem,
        "in_service": in_service,
        "min_labels": MIN_LABELS,
        "measured": _measured(cards),
    }
    if in_service is not None and in_service.groups:
        title = translator(request).gettext("Accuracy by group of devices")
        values["group_bars"] = _bars(request, title, in_service.groups)
    return values | (_drawn(request, latest, cards) if latest is not None and latest.curve.points else {})


def _versions(console: Console) -> tuple[list[Card], _InService | None]:
    """Read the cards, and the audits of the version in service; blocks."""
    cards = console.registry.cards()
    serving = newest_promoted(cards)
    if serving is None:
        return cards, None
    answered = f"model_version = {serving.version}"
    stats = audit_stats_by_version(console.store, answered).get(serving.version)
    if stats is None or not stats.photos:
        return cards, None
    groups = {
        name: Share(audits.photos, audits.accuracy, *audits.interval)
        for name, audits in audit_stats_by_group(console.store, answered).get(serving.version, {}).items()
    }
    low, high = stats.interval
    return cards, _InService(serving.version, stats.photos, stats.accuracy, low, high, groups)


def _measured(cards: Sequence[Card]) -> list[tuple[Card, int]]:
    """Return the versions that were measured on gold photos, with their number of human labels."""
    return [
        (card, sum(sources.get("human", 0) for sources in card.examples_used.values()))
        for card in cards
        if card.metrics is not None
    ]


def _drawn(request: Request, latest: Insights, cards: Sequence[Card]) -> dict[str, object]:
    gettext, curve = translator(request).gettext, latest.curve
    last = curve.points[-1]
    gain = curve.gain if curve.gain is not None and curve.gain.is_narrow else None
    marks = [
        Mark(
            gettext("version %(number)s") % {"number": card.version},
            Point(labels, card.metrics.accuracy_low, card.metrics.accuracy, card.metrics.accuracy_high),
        )
        for card, labels in _measured(cards)[-4:]
        if card.metrics is not None and labels
    ]
    sentence = gettext("With %(labels)s labels, %(share)s of the photos held out are answered correctly.")
    frame = Frame(
        gettext("Accuracy by the number of labels"),
        sentence % {"labels": last.labels, "share": percent(request, last.accuracy)},
        gettext("labels by people"),
    )
    lines = [Line("one", [Point(one.labels, one.low, one.accuracy, one.high) for one in curve.points])]
    if gain is not None:
        lines.append(Line("ahead", _ahead(curve, gain), dotted=False))
    return {
        "gain": gain,
        "chart": line_chart(frame, lines, marks),
        "class_bars": _bars(request, gettext("Accuracy by class"), curve.by_class),
        "device_bars": _bars(request, gettext("Accuracy by device"), curve.by_group),
    }


def _ahead(curve: LearningCurve, gain: Gain) -> list[Point]:
    last = curve.points[-1]
    start = Point(last.labels, last.accuracy, last.accuracy, last.accuracy)
    values = (min(1.0, last.accuracy + part) for part in (gain.low, gain.expected, gain.high))
    return [start, Point(curve.labels + gain.labels, *values)]


def _bars(request: Request, title: str, shares: dict[str, Share]) -> Markup:
    gettext = translator(request).gettext
    # The worst first: more labels help there.
    worst = sorted(shares.items(), key=lambda one: one[1].accuracy)[:_MOST_BARS]
    note = gettext("%(share)s of %(photos)s")
    bars = [
        Bar(
            name or gettext("imported"),
            one.low,
            one.accuracy,
            one.high,
            note % {"share": percent(request, one.accuracy), "photos": one.photos},
        )
        for name, one in worst
    ]
    return interval_bars(title, "; ".join(f"{bar.name}: {bar.note}" for bar in bars), bars)


PAGE = Page(
    name="progress",
    path="/progress",
    title=N_("Progress"),
    icon="progress",
    routes=(Route("/progress", _show), Route("/progress/figures", _figures)),
)
