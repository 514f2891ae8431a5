"""Models: versions, verdicts of the gate, wrong answers, and two versions side by side."""

import asyncio
from collections.abc import Sequence

from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from cloud.registry.model_card import Card
from cloud.reporting.card_rows import card_rows
from cloud.reporting.comparison import comparison_notes, comparison_rows
from console.analysis.model_view import comparisons, confusion, mistakes, mistakes_on_gold, recalls, versions
from console.context import console_of
from console.web.charts import Bar, interval_bars
from console.web.languages import N_, translator
from console.web.navigation import Page
from console.web.parameters import number_in, whole_number
from console.web.rendering import is_fragment, percent, render

STATES = {
    "released": N_("released"),
    "tried": N_("being tried"),
    "promoted": N_("promoted"),
    "kept": N_("kept back"),
    "inconclusive": N_("inconclusive"),
    "returned": N_("rolled back"),
}
DECISIONS = {
    "promote": N_("Promote"),
    "keep": N_("Keep the champion"),
    "inconclusive": N_("Inconclusive: too few photos to tell"),
}
KINDS = {
    "gold": N_("gold photos"),
    "audit": N_("audited photos"),
    "held-out": N_("labels held out"),
}
_MOST_BARS = 16


async def _list(request: Request) -> Response:
    console = console_of(request)
    cards = await asyncio.to_thread(console.registry.cards)
    found = versions(cards, console.live.statuses.values(), console.live.releases)
    return render(
        request,
        "models/_versions.html" if is_fragment(request) else "models.html",
        {
            "versions": found,
            "states": STATES,
            "refused": "refused" in request.query_params,
        },
    )


async def _version(request: Request) -> Response:
    console, card = console_of(request), await _card(request, number_in(request, "version"))
    in_service = await asyncio.to_thread(mistakes, console.store, card.version)
    gold = await asyncio.to_thread(console.registry.gold_mistakes, card.version)
    on_gold = [] if gold is None else await asyncio.to_thread(mistakes_on_gold, console.store, gold)
    return render(
        request,
        "models/version.html",
        {
            "card": card,
            "matrix": confusion(card),
            "bars": _bars(request, card),
            "compared": comparisons(card),
            "gold": gold,
            "on_gold": on_gold,
            "in_service": in_service,
            "rows": card_rows(card),
            "decisions": DECISIONS,
            "kinds": KINDS,
        },
    )


async def _compare(request: Request) -> Response:
    chosen = request.query_params.getlist("version")
    if len(chosen) != 2:  # noqa: PLR2004 - side by side
        return RedirectResponse("/models?refused=compare", 303)
    cards = [await _card(request, whole_number(text)) for text in chosen]
    return render(
        request,
        "models/compare.html",
        {
            "cards": cards,
            "rows": comparison_rows(cards),
            "notes": comparison_notes(cards),
            "sides": [(card, confusion(card), _bars(request, card)) for card in cards],
        },
    )


async def _card(request: Request, version: int | None) -> Card:
    cards: Sequence[Card] = await asyncio.to_thread(console_of(request).registry.cards)
    found = next((card for card in cards if card.version == version), None)
    if found is None:
        raise HTTPException(404)
    return found


def _bars(request: Request, card: Card) -> Markup | None:
    found = recalls(card)[:_MOST_BARS]
    if not found:
        return None
    gettext = translator(request).gettext
    note = gettext("%(share)s of %(photos)s")
    bars = [
        Bar(
            one.name,
            one.low,
            one.share,
            one.high,
            note % {"share": percent(request, one.share), "photos": one.photos},
        )
        for one in found
    ]
    title = gettext("Recall by class, version %(number)s") % {"number": card.version}
    return interval_bars(title, "; ".join(f"{bar.name}: {bar.note}" for bar in bars), bars)


PAGE = Page(
    name="models",
    path="/models",
    title=N_("Models"),
    icon="models",
    routes=(
        Route("/models", _list),
        Route("/models/compare", _compare),
        Route("/models/{version}", _version),
    ),
)
