"""Take the pictures of the console for the documentation: `make screenshots`.

Starts a demonstration that stays, labels photos, lets the trainer make a version and begins its rollout. Each
page is taken at 1280 and at 390 pixels. `--all DIR` writes every page in both languages, light and dark, as
PNG, for a person who looks for what is wrong; Chinese needs a font, such as Debian's fonts-wqy-microhei.
"""

import argparse
import io
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cloud.registry.registry import Registry, is_promoted
from console.pages import PAGES
from console.web.languages import COOKIE
from tests.conftest import ROOT
from tests.console.conftest import DESKTOP, PHONE, chromium
from tests.console.staying import LABELS, LAST, Staying, label_as_the_model_says, staying

WAIT_S = 1800
QUALITY = 60
SCREENS: dict[str, dict[str, Any]] = {
    "": {"viewport": DESKTOP},
    "-phone": {"viewport": PHONE, "device_scale_factor": 2, "is_mobile": True, "has_touch": True},
}
KINDS = [("en", "light"), ("en", "dark"), ("zh_Hant", "light"), ("zh_Hant", "dark")]
# Those below the edge are not loaded: they are lazy.
_UNTIL_SHOWN = """() => Promise.all([...document.images]
    .filter((one) => !one.complete && one.getBoundingClientRect().top < innerHeight)
    .map((one) => one.decode().catch(() => 0)))"""


def prepare(page: Page, demo: Staying, ending: ExitStack) -> None:
    """Label photos, wait for the version that is made of them, and stop its rollout in the middle."""
    page.goto("/review")
    label_as_the_model_says(page, expect, LABELS)
    registry = Registry(demo.work / "models")
    until(lambda: any(card.version == 3 for card in registry.cards()))
    # Version 2 is the champion only if the gate promoted it.
    champion = registry.card(3).parent
    if not is_promoted(registry.card(3)):
        ending.callback(begin_rollout(demo.work).terminate)
    page.goto("/rollout")
    expect(page.locator("#view")).to_contain_text(f"Version 3 over version {champion}", timeout=1000 * WAIT_S)
    page.goto("/rollout/confirm?action=pause")
    page.locator("form.panel button").first.click()
    expect(page.locator(".chip.state-paused")).to_be_visible(timeout=60_000)


def until(condition: Any) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(1)


def begin_rollout(work: Path) -> subprocess.Popen[bytes]:
    """Roll version 3 out although the gate did not promote it, slowly."""
    port = re.search(r'"port": (\d+)', (work / "logs" / "trainer.log").read_text("utf-8"))
    assert port is not None
    return subprocess.Popen(
        [
            sys.executable, "-m", "cli.main", "cloud", "rollout", str(work / "models" / "3.tar"),
            "--force", "--broker", f"127.0.0.1:{port[1]}", "--dataset", str(work / "dataset.lance"),
            # A version of few labels may disagree with the champion so often that it would be rolled back.
            "--shadow-photos", "20", "--disagreement", "1",
        ],
        cwd=ROOT,
    )  # fmt: skip


def addresses(page: Page) -> dict[str, str]:
    """Return the address of each picture: every page, and what is behind their first links."""
    found = {one.name: one.path for one in PAGES}
    page.goto("/photos?lane=hard")
    alike = page.locator(".sheet-grid a").first.get_attribute("href")
    return found | {
        "review-grid": "/review?view=grid",
        "version": "/models/2",
        "compare": "/models/compare?version=1&version=2",
        "policy-form": "/policy/edge-1",
        "alike": alike or "/photos",
        "policy-preview": "",
    }


def show(page: Page, address: str) -> None:
    """Open a page and wait until what is being computed, and its pictures, are there."""
    if address:
        page.goto(address)
        page.locator(".empty[role=status]").wait_for(state="detached", timeout=120_000)
    else:
        page.goto("/policy/edge-1")
        page.locator("[name=auto_confidence]").fill("0.95")
        page.locator("form.rules button.primary").click()
        page.locator("#photos-title").wait_for()
    page.evaluate(_UNTIL_SHOWN)


def webp(png: bytes, path: Path) -> None:
    """Write a picture for the documentation, a phone's in its own pixels."""
    with Image.open(io.BytesIO(png)) as picture:
        shown = picture.convert("RGB")
        if shown.width == 2 * PHONE["width"]:
            shown = shown.resize((PHONE["width"], PHONE["height"]), Image.Resampling.LANCZOS)
        shown.save(path, "WEBP", quality=QUALITY, method=6)


def take(browser: Browser, base: str, cookies: list[Any], out: Path, *, everything: bool) -> None:
    """Take all pictures."""
    for language, scheme in KINDS if everything else KINDS[:1]:
        for name, screen in SCREENS.items():
            context = browser.new_context(base_url=base, color_scheme=scheme, locale="en-GB", **screen)
            context.add_cookies([*cookies, {"name": COOKIE, "value": language, "url": base}])
            page = context.new_page()
            for picture, address in addresses(page).items():
                show(page, address)
                png = page.screenshot()
                if everything:
                    (out / f"{picture}{name}-{language}-{scheme}.png").write_bytes(png)
                else:
                    webp(png, out / f"console-{picture}{name}.webp")
            context.close()


def main() -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--all", metavar="DIR", type=Path, help="every kind of each page, as PNG, in a folder"
    )
    arguments = parser.parse_args()
    with ExitStack() as ending:
        demo = ending.enter_context(staying())
        address = demo.address(WAIT_S)
        browser = ending.enter_context(sync_playwright()).chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        base = address.partition("/?")[0]
        context = browser.new_context(base_url=base, locale="en-GB")
        page = context.new_page()
        page.goto(address)
        demo.printed(LAST, WAIT_S)
        prepare(page, demo, ending)
        cookies = [dict(one) for one in context.cookies()]
        context.close()
        take(browser, base, cookies, ROOT / "docs" / "images", everything=False)
        if arguments.all is not None:
            arguments.all.mkdir(parents=True, exist_ok=True)
            take(browser, base, cookies, arguments.all, everything=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
