"""Audit: who did what, newest first, for operators."""

from typing import NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.access.audit_trail import ACTIONS, Recorded
from console.access.roles import requires
from console.context import console_of
from console.web.filters import Filter, chosen_in
from console.web.languages import N_, translator
from console.web.navigation import Page
from console.web.parameters import whole_number
from console.web.rendering import is_fragment, render
from schemas.errors import DECODE_ERRORS

PER_PAGE = 50
MAX_PHOTOS = 6
"""Most photos of an entry that are linked; a label for several at once may have 200."""
WORDS = {
    "account": N_("Account"),
    "changes": N_("Rules"),
    "label": N_("Label"),
    "name": N_("Name"),
    "node": N_("Node"),
    "ordered": N_("Order"),
    "reason": N_("Reason"),
    "role": N_("Role"),
    "sample": N_("Sample"),
    "version": N_("Version"),
}
"""Titles of facts; others are for programs, and not shown."""


_KINDS: dict[str, object] = {
    "changes": dict[str, tuple[str | None, str | None]],
    "ordered": str,
    "role": str,
}
"""Types of the facts that are not shown as text."""


class ShownEntry(NamedTuple):
    """An entry as the page shows it."""

    entry: Recorded
    facts: dict[str, object]
    photos: list[str]


@requires("operator")
async def _show(request: Request) -> Response:
    chosen = chosen_in(request, ["action", "person", "about"])
    place = whole_number(request.query_params.get("before", ""))
    found = await console_of(request).audit.find(**chosen, before=place, limit=PER_PAGE + 1)
    entries = found[:PER_PAGE]
    values = {
        "entries": [_shown(one) for one in entries],
        "actions": ACTIONS,
        "words": WORDS,
        "most_photos": MAX_PHOTOS,
        "chosen": chosen,
        "chosen_any": any(chosen.values()),
        "first": place is None,
        "following": entries[-1].seq if len(found) > PER_PAGE else None,
        "filters": _filters(request),
    }
    return render(request, "audit/_entries.html" if is_fragment(request) else "audit.html", values)


def _shown(one: Recorded) -> ShownEntry:
    facts = one.details
    photos = facts.get("photos", [facts["photo"]] if "photo" in facts else [])
    for name, kind in _KINDS.items():  # a flipped bit can leave valid JSON of another form
        if name in facts:
            try:
                msgspec.convert(facts[name], kind)
            except DECODE_ERRORS:
                facts[name] = None
    return ShownEntry(one, facts, [str(photo) for photo in photos] if isinstance(photos, list) else [])


def _filters(request: Request) -> list[Filter]:
    _ = translator(request).gettext
    actions = {name: _(text) for name, text in ACTIONS.items()}
    return [
        Filter("action", _("Action"), actions),
        Filter("person", _("Person"), {}),
        Filter("about", _("Photo, label or node"), {}),
    ]


PAGE = Page(
    name="audit",
    path="/audit",
    title=N_("Audit trail"),
    icon="audit",
    role="operator",
    routes=(Route("/audit", _show),),
)
