"""Rules of every page of the console: it fits a phone and a wide screen, is accessible, and small."""

import importlib.resources
import json

import pytest

from console.pages import PAGES
from console.web.languages import COOKIE
from tests.console.conftest import PHONE, running_console, watched

PATHS = [page.path for page in PAGES] + ["/review?view=grid"]
MAX_PAGE_BYTES = 100_000
WIDTH = """async (src) => {
  const icon = new Image();
  icon.src = src;
  await icon.decode();
  return icon.naturalWidth;
}"""
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


def test_every_page_is_accessible_in_chinese(phone, console):
    """Its language is declared for screen readers, and nothing is cut off."""
    phone.context.add_cookies([{"name": COOKIE, "value": "zh_Hant", "url": console.url}])
    found = {}
    for path in PATHS:
        phone.goto(path)
        assert phone.locator("html").get_attribute("lang") == "zh-Hant"
        problems = violations(phone)
        if not phone.evaluate("document.documentElement.scrollWidth <= innerWidth"):
            problems.append("wider than the screen")
        if problems:
            found[path] = problems
    assert found == {}


def test_every_page_of_an_empty_system_is_accessible(browser, tmp_path, mosquitto):
    """Before the first photo, dark and in Chinese, with the error page."""
    with running_console(tmp_path, mosquitto, samples=0) as empty:
        context = browser.new_context(base_url=empty.url, viewport=PHONE, color_scheme="dark", locale="zh-TW")
        with watched(context.new_page()) as page:
            page.goto(empty.address)
            found = {}
            for path in [*PATHS, "/nothing-here", "/rollout/confirm?action=pause"]:
                page.goto(path)
                assert page.locator("html").get_attribute("lang") == "zh-Hant"
                if problems := violations(page):
                    found[path] = problems
            assert found == {}
        context.close()


def test_what_is_beside_the_pages_is_accessible(phone, console):
    """The sheet of further pages while it is open, the error page, and the login of a stranger."""
    phone.goto("/now")
    phone.locator("details.more summary").tap()
    phone.locator("details.more a[href='/events']").wait_for()
    assert violations(phone) == []
    assert phone.goto("/nothing-here").status == 404
    assert violations(phone) == []
    phone.context.clear_cookies()
    phone.goto("/now")
    assert phone.url == f"{console.url}/login"
    assert violations(phone) == []


def test_the_console_can_be_installed(page):
    """Chromium reads the manifest without an error, and draws each icon in the declared size."""
    page.goto("/now")
    found = page.context.new_cdp_session(page).send("Page.getAppManifest")
    assert (found["url"].rpartition("/")[2], found["errors"]) == ("manifest.webmanifest", [])
    icons = json.loads(found["data"])["icons"]
    assert {(one["sizes"], one["purpose"]) for one in icons} >= {("192x192", "any"), ("512x512", "maskable")}
    for one in icons:
        width = page.evaluate(WIDTH, one["src"])
        assert f"{width}x{width}" == one["sizes"]


@pytest.mark.parametrize("path", PATHS)
def test_a_page_is_small(page, path):
    """Page, style and scripts together transfer less than 100 kB, without pictures."""
    page.goto(path)
    assert sent_bytes(page) < MAX_PAGE_BYTES


def sent_bytes(page) -> int:
    """Return how many bytes were transferred for the open page, without its pictures."""
    sizes = page.evaluate(
        """performance.getEntries()
        .filter((one) => one.entryType === "navigation" || ["link", "script"].includes(one.initiatorType))
        .map((one) => one.encodedBodySize)"""
    )
    assert len(sizes) >= 4
    assert all(sizes)
    return sum(sizes)
