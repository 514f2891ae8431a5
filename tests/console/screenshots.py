"""Take the pictures of the console for the documentation, on a demonstration that stays.

    python -m tests.console.screenshots [OUT]      (make screenshots)

Each page at 1280 and at 390 pixels, in English and light, as WebP; `--all DIR` writes every page in both languages,
light and dark, as PNG, to be looked at. `--address URL` uses a demonstration that runs already.
"""

import argparse
import io
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from console.pages import PAGES
from console.web.languages import COOKIE
from tests.conftest import ROOT
from tests.console.conftest import DESKTOP, PHONE, chromium
from tests.console.staying import LAST, label_as_the_model_says, staying

WAIT_S = 1200
LABELLED = 24
QUALITY = 62
# Those below the edge are not loaded: they are lazy.
_UNTIL_SHOWN = """() => Promise.all([...document.images]
    .filter((one) => !one.complete && one.getBoundingClientRect().top < innerHeight)
    .map((one) => one.decode().catch(() => 0)))"""
SCREENS: dict[str, dict[str, Any]] = {
    "": {"viewport": DESKTOP},
    "-phone": {"viewport": PHONE, "device_scale_factor": 2, "is_mobile": True, "has_touch": True},
}


def addresses(page: Page) -> dict[str, str]:
    """Return the address of each picture: every page, and what is behind their first links."""
    found = {one.name: one.path for one in PAGES}
    found["review-grid"] = "/review?view=grid"
    page.goto("/models")
    newest = page.locator(".version a").first.get_attribute("href") or "/models"
    found["version"] = newest
    found["compare"] = f"/models/compare?version=1&version={newest.rpartition('/')[2]}"
    found["policy-form"] = "/policy/edge-1"
    page.goto("/photos?lane=hard")
    found["alike"] = page.locator(".sheet-grid a").first.get_attribute("href") or "/photos"
    return found


def settled(page: Page, address: str) -> None:
    """Open a page and wait until its pictures are there."""
    page.goto(address)
    page.locator("[role=status] .icon").first.wait_for(state="hidden", timeout=120_000)  # it is being computed
    page.evaluate(_UNTIL_SHOWN)


def webp(png: bytes, path: Path) -> None:
    """Write a picture for the documentation, at most 1280 pixels wide."""
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").save(path, "WEBP", quality=QUALITY, method=6)


def enter(browser: Browser, address: str) -> list[Any]:
    """Open the one-time address and return the cookies."""
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(address)
    page.goto(address.partition("/?")[0] + "/review")
    label_as_the_model_says(page, expect, LABELLED)
    cookies = context.cookies()
    context.close()
    return cookies


def take(browser: Browser, base: str, cookies: list[Any], out: Path, *, everything: bool) -> None:
    """Take all pictures."""
    kinds = [("en", "light"), ("en", "dark"), ("zh_Hant", "light"), ("zh_Hant", "dark")]
    for language, scheme in kinds if everything else kinds[:1]:
        for name, screen in SCREENS.items():
            context = browser.new_context(base_url=base, color_scheme=scheme, locale="en-GB", **screen)
            context.add_cookies(cookies)
            context.add_cookies([{"name": COOKIE, "value": language, "url": base}])
            page = context.new_page()
            for picture, address in addresses(page).items():
                settled(page, address)
                png = page.screenshot()
                if everything:
                    (out / f"{picture}{name}-{language}-{scheme}.png").write_bytes(png)
                else:
                    webp(png, out / f"console-{picture}{name}.webp")
            context.close()


def begin_rollout(work: Path, port: str) -> subprocess.Popen[bytes]:
    """Roll the newest version out slowly, so that its page has something to show."""
    bundle = max((work / "models").glob("*.tar"), key=lambda one: int(one.stem))
    return subprocess.Popen(
        [
            sys.executable, "-m", "cli.main", "cloud", "rollout", str(bundle), "--nodes", "edge-1",
            "--broker", f"127.0.0.1:{port}", "--dataset", str(work / "dataset.lance"), "--force",
        ],
        cwd=ROOT,
    )  # fmt: skip


def main() -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--address")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as ending:
        address = arguments.address
        if address is None:
            demo = ending.enter_context(staying())
            demo.printed(LAST, WAIT_S)
            address = demo.address(0)
        browser = ending.enter_context(sync_playwright()).chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        cookies = enter(browser, address)
        take(browser, address.partition("/?")[0], cookies, arguments.out, everything=arguments.all)
    return 0


if __name__ == "__main__":
    sys.exit(main())
