"""The pages of the console, one module each, in the order of the navigation."""

from console.pages import (
    audit,
    doubts,
    entrance,
    events,
    fleet,
    models,
    now,
    pictures,
    policy,
    progress,
    quarantine,
    review,
    rollout,
    search,
)
from console.web.navigation import Page

PAGES: tuple[Page, ...] = (
    now.PAGE,
    review.PAGE,
    progress.PAGE,
    models.PAGE,
    rollout.PAGE,
    fleet.PAGE,
    policy.PAGE,
    search.PAGE,
    doubts.PAGE,
    quarantine.PAGE,
    events.PAGE,
    audit.PAGE,
)
"""The pages; the first one is the home page."""

ENTRANCE = (*entrance.ROUTES, *pictures.ROUTES)
"""Routes that belong to no page."""
