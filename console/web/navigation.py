"""A page: its place in the navigation, and its routes."""

from dataclasses import dataclass

from starlette.routing import Route

from console.access.roles import Role


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page of the console.

    Args:
        name: Of its module and its template.
        path: Where it is; what begins with it belongs to the page too.
        title: In English, marked with `N_`.
        icon: Name of a symbol in `console/static/icons.svg`.
        routes: Its routes, all below `path`.
        role: Who sees it in the navigation; each endpoint checks who may use it.
        shown: Whether it is in the navigation.
    """

    name: str
    path: str
    title: str
    icon: str
    routes: tuple[Route, ...]
    role: Role = "viewer"
    shown: bool = True


def page_at(pages: tuple[Page, ...], path: str) -> Page | None:
    """Return the page that a path belongs to."""
    return next((page for page in pages if path == page.path or path.startswith(f"{page.path}/")), None)
