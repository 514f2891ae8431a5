"""Rules of every page of the console: it fits a phone and a wide screen, is accessible, and small."""

import importlib.resources
import json

import pytest

from console.pages import PAGES

PATHS = [page.path for page in PAGES] + ["/review?view=grid"]
MAX_PAGE_BYTES = 100_000
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module", autouse=True)
def something_to_see(console):
    """Answers, statuses and events of every kind that the pages show."""
    console.report()
    console.report(node="edge-2", state="offline", reason="the connection broke")
    console.happen("round.finished", facts={"version": 2})
    console.answer(device="pi-2", status="rejected", label=None, confidence=None, code="corrupt-image")
    last = console.answer()
    console.wait_until(lambda: last in console.shown.live.latest())


def violations(page) -> list[str]:
    """Return what axe-core finds on the page that is shown."""
    axe = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    # Evaluated by the browser's debugger, so that the page's policy, which forbids inline script, stays.
    page.evaluate(axe.read_text(encoding="utf-8"))
    options = {"runOnly": {"type": "tag", "values": WCAG}, "resultTypes": ["violations"]}
    found = page.evaluate(f"axe.run(document, {json.dumps(options)})")["violations"]
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("screen", "scheme"), [("phone", "light"), ("page", "dark")])
def test_a_page_is_accessible_and_fits(request, screen, scheme, path):
    """axe-core finds no violation of WCAG 2.2 AA, and nothing is cut off at the side."""
    page = request.getfixturevalue(screen)
    page.emulate_media(color_scheme=scheme)
    page.goto(path)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("path", PATHS)
def test_a_page_is_small(page, path):
    """Page, style and scripts together are below 100 kB on their way, without pictures."""
    page.goto(path)
    sizes = page.evaluate(
        """performance.getEntries()
        .filter((one) => one.entryType === "navigation" || ["link", "script"].includes(one.initiatorType))
        .map((one) => one.encodedBodySize)"""
    )
    assert len(sizes) >= 4
    assert all(sizes)
    assert sum(sizes) < MAX_PAGE_BYTES
