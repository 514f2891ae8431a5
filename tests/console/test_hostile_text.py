"""Rules of console/web/rendering.py in a browser: what strangers wrote is shown as text, on every page."""

import json
from pathlib import Path

import pytest
from msgspec import structs

from bus.mqtt.presence import now_ms
from cloud.dataset.store import Store
from cloud.registry.registry import Registry
from schemas.field_types import MAX_TEXT_CHARS
from schemas.messages import ServedModel
from tests.console import filling
from tests.console.conftest import running_console, sample

SCRIPT = "<script>document.title='hacked'</script>"
REVERSED = "evil\u202egpj.exe"
IMAGE = "<img src=x onerror=document.title='hacked'>"
LONG = f"{SCRIPT}{REVERSED}" + "x" * 10_000
REASON = LONG[:MAX_TEXT_CHARS]
LABEL = LONG[:128]
MAX_SHOWN_CHARS = 450

# What a browser made of a page: elements that we did not write, and texts that are too long or reversed.
FOUND = """() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) texts.push(walker.currentNode.data);
  for (const node of document.querySelectorAll("*")) {
    const names = ["alt", "title", "aria-label", "placeholder"];
    texts.push(...names.map((name) => node.getAttribute(name) || ""));
  }
  return {
    foreign: document.querySelectorAll("body script, [src=x], [onerror]").length,
    reversed: texts.filter((text) => text.includes("\\u202e")),
    longest: Math.max(...texts.map((text) => text.length)),
    wide: document.documentElement.scrollWidth > innerWidth,
  };
}"""


@pytest.fixture(scope="module")
def console(tmp_path_factory, mosquitto):
    """A console where classes, reasons, facts, names of files and people's labels are hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    said = {"edge_label": LABEL, "teacher_label": SCRIPT, "teacher_by": LABEL, "teacher_at_ms": now_ms()}
    # Before the console lists the photos to label.
    Store.open(str(folder / "dataset.lance")).upsert([sample(at, **said) for at in (901, 902)])
    with (
        running_console(folder, mosquitto, samples=1) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(filling, "CLASSES", (SCRIPT, IMAGE))
        filling.fill(running)
        registry = Registry(Path(running.config.models))
        card = registry.card(2)
        registry.write_card(structs.replace(card, verdict=structs.replace(card.verdict, reasons=[LONG])))
        served = ServedModel(name="pets", version=1, state="failed")
        running.report(
            node="edge-9",
            state="degraded",
            reason=REASON,
            model=served,
            software=SCRIPT,
            counters={SCRIPT: 1},
        )
        running.happen("round.failed", reason=REASON, facts={IMAGE: REASON, REVERSED: SCRIPT})
        last = running.answer(device="pi-9", label=SCRIPT, scores={SCRIPT: 1.0}, harvest=REASON)
        running.wait_until(lambda: last in running.shown.live.latest())
        running.shown.insights.latest()
        running.wait_until(lambda: (found := running.shown.insights.latest()) is not None and found.doubts)
        yield running


PAGES = {
    "/now": "<script>",
    "/review": "<script>",
    "/review?view=grid": "<script>",
    "/events": "<img src=x",
    "/fleet": "<script>",
    "/models": "",
    "/models/2": "<script>",
    "/models/compare?version=1&version=2": "<script>",
    "/rollout": "",
    "/progress": "<script>",
    "/photos": "<script>",
    "/doubts": "<script>",
    "/quarantine": "",
    "/photos/{labelled}/alike": "<img src=x",
    "/doubts/{labelled}/forget?back=//evil": "",
    "/rollout/confirm?action=pause": "",
    "/audit": "<script>",
    "/nothing/%3Cscript%3E?%3Cscript%3E": "",
}
"""What is seen as text on each page."""


def test_text_of_strangers_is_text_on_every_page(console, phone):
    """Markup runs nothing, direction marks turn nothing round, 10 kB push nothing off a phone's screen."""
    problems = {}
    console.call(console.shown.audit.record_as(SCRIPT, REVERSED, "label.given", label=IMAGE, photos=[LONG]))
    for path, expected in PAGES.items():
        phone.goto(path.format(labelled=console.embedded))
        title = phone.title()
        found = phone.evaluate(FOUND)
        if (
            found["foreign"] or found["reversed"] or found["wide"] or found["longest"] > MAX_SHOWN_CHARS
            or "hacked" in title or expected not in phone.inner_text("main")
        ):  # fmt: skip
            problems[path] = found | {"title": title, "text": phone.inner_text("main")[:300]}
    assert not problems, json.dumps(problems, indent=1)


def test_the_preview_of_a_policy_shows_text_of_strangers_as_text(console, phone):
    """Reasons for which edges did not harvest are theirs too."""
    phone.goto("/policy/edge-1")
    phone.get_by_role("button", name="Preview").click()
    found = phone.evaluate(FOUND)
    assert (found["foreign"], found["reversed"], found["wide"]) == (0, [], False)
    assert found["longest"] <= MAX_SHOWN_CHARS


def test_a_hostile_class_that_is_typed_is_text(console, page):
    """The script of the page shows it as it is, on its own button, and it is exact in the label."""
    page.goto("/review")
    photo = page.locator("[data-photo]:visible").first.get_attribute("data-photo")
    page.keyboard.press("o")
    page.keyboard.type(IMAGE)
    page.keyboard.press("Enter")
    page.locator("button.class", has_text=IMAGE).wait_for()
    page.get_by_role("status").filter(has_text=f"{IMAGE} ✓").wait_for()
    assert page.evaluate(FOUND)["foreign"] == 0
    console.wait_until(lambda: console.labels().get(photo, ("",))[0] == IMAGE)
