"""Rules of a page in another language than English: all of it is in that language, also what others said."""

import re
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from cloud.dataset.dead_letters import Bounds, DeadLetter, DeadLetterTable
from cloud.dataset.store import Store
from cloud.evaluation.audit_stats import AuditStats, RolloutAudits
from cloud.evaluation.paired_comparison import PairedPredictions
from cloud.evaluation.promotion_gate import Evidence, decide_promotion
from cloud.registry.registry import Registry
from cloud.registry.rollout_state import Rules
from cloud.rollout.canary_analysis import audit_alarms, latency_alarms, pooled_alarms
from console.pages import PAGES
from console.web.languages import COOKIE
from console.web.words import ANSWERS, HARVEST
from schemas.codec import decode
from schemas.errors import GleanerError
from schemas.events import EventName
from schemas.image import inspect_image
from schemas.messages import CanaryReport, VersionStats
from schemas.topics import CLOUD, PHOTO, SAMPLE
from tests.console.filling import begin_rollout, fill

ENGLISH = re.compile(r"(?<![\w'./-])[A-Za-z]{2,}(?: +[a-z']{2,})+")
"""Two words in a row, the second one in lower case."""
QUOTED = re.compile(r"'gleaner [^']*'|「gleaner [^」]*」|`[^`]*`|gleaner cloud retire \S+")
"""Commands, which are typed as they are."""
TEXTS = """() => {
  const names = "bdi, code, kbd, dl, .languages, .pair, [lang=en], script, style";
  const shown = (one) => !one.closest(names);
  const found = [];
  const walk = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) if (shown(walk.currentNode.parentElement)) found.push(walk.currentNode.data);
  for (const one of document.querySelectorAll("*"))
    for (const {name, value} of one.attributes)
      if (shown(one) && /^(alt|title|aria-label|placeholder|data-text-.*)$/.test(name)) found.push(value);
  return found.map((text) => text.replace(/\\s+/g, " ").trim()).filter(Boolean);
}"""


def english(texts: list[str]) -> list[str]:
    """Return the texts that have English words other than names and commands."""
    return [one for one in texts if ENGLISH.search(QUOTED.sub("", one))]


def reason_of(act, *arguments, **keywords) -> str:
    """Return the message of the error that a function raises."""
    with pytest.raises(GleanerError) as raised:
        act(*arguments, **keywords)
    return str(raised.value)


def gate_reasons() -> list[str]:
    """Return the gate's reasons for each of its decisions."""
    truth = np.arange(400) % 2

    def pair(champion: int, challenger: int, count: int = 400, confidence: float = 0.9) -> PairedPredictions:
        def answers(wrong: int) -> np.ndarray:
            said = np.where(np.arange(count) < wrong, 1 - truth[:count], truth[:count])
            scores = np.full((count, 2), 1 - confidence)
            scores[np.arange(count), said] = confidence
            return scores

        return PairedPredictions(answers(champion), answers(challenger), truth[:count], np.ones(count))

    names = ("cat", "dog")
    evidence = [
        Evidence(pair(80, 10), 0.8, names),
        Evidence(pair(10, 80), 1.0, names, latency_ratio=2.0, lost=["owl"], audit=pair(0, 20, 40)),
        Evidence(pair(4, 4, 40), 0.9, names),
        Evidence(pair(40, 40), 0.9, names),
        Evidence(None, 0.9, names),
        Evidence(None, 0.9, names, held_out=pair(4, 4, 40)),
        Evidence(pair(40, 36), 0.9, names, held_out=pair(12, 4, 40)),
        Evidence(pair(40, 40), 0.9, names, held_out=pair(0, 20, 40)),
    ]
    return [reason for one in evidence for reason in decide_promotion(one, champion=1).reasons]


def rollback_reasons() -> list[str]:
    """Return the text of each alarm of a rollout."""
    good = VersionStats(version=1, answered=900, failed=1, p95_ms=10.0)
    bad = VersionStats(version=2, answered=900, failed=200, p95_ms=90.0)
    report = CanaryReport(
        stage="canary", champion=good, challenger=bad, compared=400, disagreed=200, since_ms=1
    )
    some, all_right = AuditStats((1.0,) * 20, (1.0,) * 30), AuditStats((1.0,) * 90, (1.0,) * 2)
    audits = RolloutAudits(some, all_right)
    reports, rules = {"edge-1": report}, Rules(disagreement=0.1)
    alarms = chain(
        pooled_alarms(reports, rules, audits), latency_alarms(reports, rules).values(), audit_alarms(audits)
    )
    found = [one.reason for one in alarms]
    assert len(found) == 4
    return found


def refusals(folder: Path) -> list[str]:
    """Return the refusals of components."""
    names = {"node": "edge-1", "device": "pi-1"}
    return [
        reason_of(decode, PHOTO, b"{", names),
        reason_of(decode, SAMPLE, b"\x80", {"node": "edge-1"}),
        reason_of(inspect_image, b"\xff\xd8\xff"),
        reason_of(inspect_image, b"GIF89a"),
        reason_of(Store.open, str(folder / "nowhere"), create=False),
        reason_of(Registry(folder).bundle, 7),
    ]


@pytest.fixture(scope="module")
def filled(console):
    """A system in which every fault that a function reports is present."""
    fill(console)
    models = Path(console.config.models)
    card = Registry(models).card(2)
    Registry(models).write_card(
        structs.replace(card, verdict=structs.replace(card.verdict, reasons=gate_reasons()))
    )
    said = refusals(console.folder)
    for number, code in enumerate(HARVEST):
        console.answer(device=f"pi-{number}", harvest=code)
    for number, code in enumerate(ANSWERS):
        if code not in ("deferred", "rejected"):
            reason = said[number % len(said)]
            console.answer(device=f"no-{number}", status="rejected", code=code, reason=reason, label=None)
    letters = [
        DeadLetter(photo_id=f"{n:032x}", node="edge-1", reason=one, received_at_ms=n, payload=b"\xff")
        for n, one in enumerate(said)
    ]
    DeadLetterTable.open(console.config.dataset).put(letters, Bounds(100, 1_000_000))
    for reason in (*said, *rollback_reasons(), *gate_reasons()):
        console.happen(EventName.ROUND_FAILED, reason=f"version 2: keep: {reason}")
    for name in EventName:
        console.happen(name)
    console.report(node=CLOUD, name="collector", state="degraded", reason="; ".join(said), dataset="/a")
    console.report(node=CLOUD, name="trainer", state="degraded", reason=said[4], dataset="/b")
    console.report(node="edge-4", state="degraded", reason=f"version 2 is delayed: {said[0]}")
    last = console.answer(device="last")
    console.wait_until(lambda: last in console.shown.live.latest())
    console.shown.insights.latest()
    console.wait_until(lambda: console.shown.insights.latest() is not None)
    return console


def pages(console) -> list[str]:
    """Return every page, with what is behind its links, and what is refused."""
    return [
        *(page.path for page in PAGES),
        "/review?view=grid",
        "/models/2",
        "/models/compare?version=1&version=2",
        *(f"/rollout/confirm?action={action}" for action in ("pause", "resume", "promote", "roll-back")),
        "/policy/edge-1",
        "/policy/edge-2",
        f"/photos/{console.embedded}/alike",
        f"/photos/{'0' * 32}/alike",
        f"/doubts/{console.doubtful}/forget",
        f"/doubts/{'0' * 32}/forget",
        "/quarantine/damage",
        "/models/99",
        "/nowhere",
    ]


@pytest.fixture
def chinese(page, console):
    """A page of a person who has chosen Traditional Chinese."""
    page.context.add_cookies([{"name": COOKIE, "value": "zh_Hant", "url": console.url}])
    return page


def test_no_page_has_an_english_sentence(filled, chinese):
    """Reasons, lanes, codes, alarms, findings and errors, in the texts and for screen readers."""
    found = {}
    for path in pages(filled):
        chinese.goto(path)
        if wrong := english(chinese.evaluate(TEXTS)):
            found[path] = wrong
    assert found == {}


def test_no_rollout_has_an_english_sentence(filled, chinese):
    """While it waits, and for each reason for which it was sent back or ended."""
    models = Path(filled.config.models)
    found = []
    states = [{"phase": "running", "step": step} for step in range(3)] + [
        {"phase": "running", "paused": True}
    ]
    states += [{"phase": "returned", "reason": reason} for reason in rollback_reasons()]
    states.append({"phase": "returned", "reason": "rolled back by Ada: 太暗"})
    for state in states:
        begin_rollout(models, **state)
        chinese.goto("/rollout")
        found += english(chinese.evaluate(TEXTS))
    begin_rollout(models)
    assert found == []


def test_a_form_and_its_preview_have_no_english_sentence(filled, chinese):
    """Also where a value is refused, and for what was not harvested."""
    chinese.goto("/policy/edge-1")
    chinese.locator("[name=audit_share]").fill("0.1")
    chinese.locator("[name=auto_by_class]").fill("cat")
    chinese.locator("form.rules button.primary").click()
    chinese.locator(".invalid").wait_for()
    assert english(chinese.evaluate(TEXTS)) == []
    chinese.locator("[name=auto_by_class]").fill("cat = 0.9")
    chinese.locator("form.rules button.primary").click()
    chinese.locator("#changes-title").wait_for()
    assert english(chinese.evaluate(TEXTS)) == []


def test_what_was_not_harvested_has_words():
    """Each code of the edge: a new one there needs words here."""
    edge = Path(__file__).resolve().parents[2] / "edge" / "harvest"
    quoted = set(
        re.findall(
            r'(?:return|None,|or|=) "([a-z]+(?:-[a-z]+)*)"',
            "".join(one.read_text() for one in edge.glob("*.py")),
        )
    )
    windows = {
        f"{kind}-per-{span}"
        for kind in ("cap", "cap-bytes", "device-share")
        for span in ("minute", "hour", "day")
    }
    assert {*quoted, *windows} - {"day", "flip", "jpeg", "new"} <= HARVEST.keys()
