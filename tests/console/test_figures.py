"""Rules of the pages with figures: what they show, who may change what, and what a change does."""

import asyncio
import re
import time
from pathlib import Path

import pytest
from msgspec import structs

from bus.mqtt.client import Bus, transient_client_id
from cloud.dataset.dead_letters import DeadLetterTable
from cloud.registry.rollout_state import RolloutFile
from cloud.rollout.state_machine import apply
from cloud.rollout.steering import obey, with_order
from console.access.login import Identified
from console.web.languages import COOKIE, translations
from schemas.messages import Steering
from schemas.topics import FORGET, POLICY, STEERING
from tests.conftest import DEADLINE_S
from tests.console.filling import begin_rollout, fill
from tests.console.test_pages import MAX_PAGE_BYTES, sent_bytes, violations
from tests.console.test_review import expect


@pytest.fixture(scope="module", autouse=True)
def filled(console):
    """Versions, labels, a rollout, a fleet, answers and a policy; waits until the console knows them."""
    fill(console)
    console.wait_until(lambda: console.shown.live.policies and len(console.shown.live.recent) >= 60)
    console.shown.insights.latest()
    console.wait_until(lambda: console.shown.insights.latest() is not None)
    return console


def paths(console) -> list[str]:
    """Return every page with figures, with what is behind its links."""
    return [
        "/progress",
        "/models",
        "/models/2",
        "/models/compare?version=1&version=2",
        "/rollout",
        "/rollout/confirm?action=roll-back",
        "/fleet",
        "/policy",
        "/policy/edge-1",
        "/photos",
        f"/photos/{console.embedded}/alike",
        "/doubts",
        f"/doubts/{console.doubtful}/forget",
        "/quarantine",
    ]


@pytest.mark.parametrize(("screen", "scheme"), [("phone", "light"), ("page", "dark"), ("page", "light")])
def test_pages_with_figures_are_accessible_and_fit(request, filled, screen, scheme):
    """Filled: axe-core finds no violation of WCAG 2.2 AA, and nothing is cut off at the side."""
    page = request.getfixturevalue(screen)
    page.emulate_media(color_scheme=scheme)
    begin_rollout(Path(filled.config.models))
    found = {}
    for path in paths(filled):
        page.goto(path)
        problems = violations(page)
        if not page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
            problems.append("wider than the screen")
        if problems:
            found[path] = problems
    assert found == {}


def test_filled_pages_are_small(page, filled):
    """Each with its style and scripts below 100 kB as sent, without pictures; so is an error."""
    sizes = {}
    for path in [*paths(filled), "/audit", "/nothing-here"]:
        page.goto(path)
        sizes[path] = sent_bytes(page)
    assert max(sizes.values()) < MAX_PAGE_BYTES, sizes


def received(console, topic, act) -> object:
    """Return the message that a subscriber at the broker gets while something is done; it is retained."""

    async def listen() -> object:
        bus = Bus(console.config.broker, transient_client_id("subscriber"))
        messages = bus.subscribe(topic)
        running = asyncio.create_task(bus.run())
        try:
            await bus.connected()
            async with asyncio.timeout(DEADLINE_S):
                return (await messages.queue.get()).message()
        finally:
            running.cancel()

    act()
    return console.call(listen())


def test_a_policy_is_previewed_and_then_reaches_the_broker(page, filled):
    """A subscriber gets it once it is confirmed, and the audit trail has the change."""
    page.goto("/policy/edge-1")
    share = page.get_by_label("Share drawn for audits")
    share.fill("0.25")
    groups = page.get_by_label("Group of each device")
    groups.fill("meter-* meters")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("expected a device or pattern")).to_be_visible()
    groups.fill("meter-* = meters\ndoor = *")
    page.get_by_role("button", name="Preview").click()
    assert "0.25" in page.get_by_role("table").first.inner_text()
    assert "meter-* = meters" in page.get_by_role("table").first.inner_text()
    assert "Of the last" in page.inner_text("main")
    assert violations(page) == []

    def confirm() -> None:
        page.get_by_role("button", name="Set this policy").click()
        page.wait_for_url("**/policy/edge-1?set=1")

    policy = received(filled, POLICY, confirm)
    assert (policy.node, policy.harvest.audit_share) == ("edge-1", 0.25)
    assert policy.groups == {"meter-*": "meters", "door": "*"}
    trail = filled.call(filled.shown.audit.newest(1))
    assert (trail[0].action, "0.25" in trail[0].facts) == ("policy.set", True)


def test_a_photo_that_is_taken_out_is_forgotten_by_its_edge(page, filled):
    """The edge that it came from gets an order with its id, and the dataset has its mark."""
    rows = filled.store.scan(["photo_id", "node"], where="origin = 'sample' AND node = 'edge-1'", limit=9)
    shown = {filled.embedded, filled.doubtful}
    photo = next(str(row["photo_id"]) for row in rows if row["photo_id"] not in shown)
    page.goto(f"/doubts/{photo}/forget?back=/photos")

    def confirm() -> None:
        page.get_by_role("button", name="Take it out for good").click()
        page.wait_for_url("**/photos?*")

    order = received(filled, FORGET, confirm)
    assert (order.node, order.photo_ids, order.before_ms) == ("edge-1", [photo], None)
    assert filled.store.find([photo], ["image", "forgotten_at_ms"])[photo]["image"] is None


def test_a_value_out_of_bounds_is_refused_by_the_console_too(page):
    """Not only by the browser: the sentence is at the field, and what was typed stays."""
    page.goto("/policy/edge-1")
    page.evaluate("document.querySelector('form.rules').noValidate = true")
    page.get_by_label("Share drawn for audits").fill("7")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("expected a number from 0 to 1")).to_be_visible()
    assert page.get_by_label("Share drawn for audits").input_value() == "7"
    # The answer of a form has no address to return to.
    page.locator(".rail button[value='en']").click()
    page.wait_for_url("**/policy")


def test_a_rollout_is_seen_and_sent_back(page, filled):
    """The order reaches the broker once it is confirmed; what the controller does then is on the page."""
    state = begin_rollout(Path(filled.config.models))
    page.goto("/rollout")
    assert page.locator("[aria-current=step]").inner_text() == "canary 10%"
    page.get_by_role("link", name="Go back").click()
    page.get_by_label("Why (for the audit trail)").fill("the dogs are wrong")

    def confirm() -> None:
        page.get_by_role("button", name="Go back").click()
        page.wait_for_url("**/rollout")

    order = received(filled, STEERING, confirm)
    assert isinstance(order, Steering)
    assert (order.action, order.version, order.reason) == ("roll-back", 2, "the dogs are wrong")
    expect(page.get_by_text("An order waits for the controller")).to_be_visible()
    done = with_order(apply(state, obey(order, {}), state.since_ms + 1), order)
    RolloutFile(Path(filled.config.models) / "rollout-2.json").write(done)
    filled.happen("rollout.returned", facts={"version": 2})
    page.get_by_text("rolled back by").first.wait_for()
    expect(page.get_by_role("link", name="Go back")).to_have_count(0)
    assert filled.call(filled.shown.audit.newest(1))[0].action == "rollout.ordered"


@pytest.mark.parametrize(
    ("button", "paused", "action"),
    [("Pause", False, "pause"), ("Go on", True, "resume"), ("Promote", False, "promote")],
)
def test_an_order_to_a_rollout_reaches_the_broker(page, filled, button, paused, action):
    """Confirmed on a page that is accessible; with its reason it is on the topic and in the audit trail."""
    begin_rollout(Path(filled.config.models), paused=paused)
    page.goto("/rollout")
    page.get_by_role("link", name=button).click()
    page.wait_for_url("**/rollout/confirm?*")
    assert violations(page) == []
    page.get_by_label("Why (for the audit trail)").fill(f"because of {action}")

    def confirm() -> None:
        page.get_by_role("button", name=button).click()
        page.wait_for_url("**/rollout")

    order = received(filled, STEERING, confirm)
    assert (order.action, order.version, order.reason) == (action, 2, f"because of {action}")
    newest = filled.call(filled.shown.audit.newest(1))[0]
    assert (newest.action, newest.person) == ("rollout.ordered", order.by)
    assert f"because of {action}" in newest.facts


def test_an_order_is_for_the_rollout_that_was_seen(page, filled):
    """If another one has begun since the page was opened, nothing is ordered."""
    state = begin_rollout(Path(filled.config.models))
    page.goto("/rollout/confirm?action=promote")
    begin_rollout(Path(filled.config.models), began_ms=state.began_ms + 1)
    page.get_by_role("button", name="Promote").click()
    expect(page.get_by_text("another rollout has begun meanwhile")).to_be_visible()


def test_a_doubtful_label_is_corrected(page, filled):
    """The photo whose label contradicts its embedding is listed; the correction is in the dataset."""
    doubt = page.locator(".doubt", has=page.locator(f"img[src*='{filled.doubtful}']"))
    deadline = time.monotonic() + DEADLINE_S
    page.goto("/doubts")
    while doubt.count() == 0:  # labels are judged in the background
        assert time.monotonic() < deadline, "the doubtful label was not listed"
        page.wait_for_timeout(200)
        page.reload()
    before, by = filled.labels()[filled.doubtful]
    doubt.get_by_role("button").first.click()
    expect(page.locator(f"img[src*='{filled.doubtful}']")).to_have_count(0)
    filled.wait_until(lambda: filled.labels()[filled.doubtful][0] != before)
    assert filled.labels()[filled.doubtful][1] != by


def test_a_sample_that_cannot_be_stored_is_discarded(page, filled):
    """After a second press; its reason is shown as it is."""
    page.goto("/quarantine")
    expect(page.get_by_text("the end in 3 bytes")).to_be_visible()
    page.get_by_text("Discard", exact=True).click()
    page.get_by_role("button", name="Discard for good").click()
    page.get_by_text("Every sample so far could be stored.").wait_for()
    assert list(DeadLetterTable.open(filled.config.dataset).newest(5)) == []
    page.get_by_role("button", name="Check now").click()
    page.get_by_text("Every file can be read.").wait_for()


def test_more_photos_like_one_are_found(page, filled):
    """By their embeddings; for a photo without one, the page explains why it cannot be compared."""
    page.goto(f"/photos/{filled.embedded}/alike")
    expect(page.locator(".sheet-grid li")).to_have_count(36)
    shown = filled.store.find([filled.embedded], ["device"])[filled.embedded]["device"]
    expect(page.locator(".query").get_by_text(str(shown))).to_be_visible()
    without = next(iter(filled.store.scan(["photo_id"], where="embedding IS NULL", limit=1)))["photo_id"]
    page.goto(f"/photos/{without}/alike")
    expect(page.get_by_text("has no embedding")).to_be_visible()


def test_photos_are_browsed_page_by_page(page, filled):
    """Each photo once, newest first, however many there are."""
    page.goto("/photos")
    seen = []
    while True:
        seen += [one.get_attribute("src") for one in page.locator(".sheet-grid img").all()]
        older = page.get_by_role("link", name="Older")
        if not older.count():
            break
        older.click()
    assert len(seen) == len(set(seen)) == filled.store.count()
    first = filled.store.find([seen[0].split("/")[2]], ["node", "device"])[seen[0].split("/")[2]]
    page.goto(f"/photos?node={first['node']}")
    expect(page.get_by_alt_text(f"{first['node']}/{first['device']}").first).to_be_visible()
    page.goto("/photos?node=another")
    expect(page.locator(".sheet-grid img")).to_have_count(0)


def test_the_progress_page_tells_what_the_next_labels_bring(page, filled):
    """Curve, intervals and the gain, also as a table for those who do not see the chart."""
    page.goto("/progress")
    expect(page.get_by_role("img", name="Accuracy by the number of labels")).to_be_visible()
    words = r"\+(\S+)\s+points expected from the next 20 labels; between (\S+) and (\S+)"
    gain = re.search(words, page.inner_text("main"))
    expected, low, high = map(float, gain.groups())
    assert low <= expected <= high
    curve = filled.shown.insights.latest().curve
    for title, shares in (("Accuracy by class", curve.by_class), ("Accuracy by device", curve.by_group)):
        told = page.get_by_role("img", name=title).locator("desc").text_content()
        assert len(shares) >= 2
        assert all(f"{name}: " in told for name in shares)
    groups = page.get_by_role("img", name="Accuracy by group of devices").locator("desc").text_content()
    assert "hall: 100" in groups
    assert "cellar: 100" in groups
    page.get_by_text("As a table").click()
    assert page.get_by_role("row").count() >= 6
    assert "from the next 20 labels" in page.inner_text("main")


def test_one_version_alone_is_not_compared(page):
    """The page explains why nothing happened."""
    page.goto("/models")
    page.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Compare two versions").click()
    expect(page.get_by_role("alert")).to_have_text("Two versions can be compared: choose exactly two.")


def test_versions_are_compared_side_by_side(page, filled):
    """With their confusion, and what they get wrong in service."""
    page.goto("/models")
    for version in (1, 2):
        page.get_by_label(f"Compare version {version}").check()
    page.get_by_role("button", name="Compare two versions").click()
    expect(
        page.get_by_role("table", name="Rows are the truth, columns the answers of version 2")
    ).to_be_visible()
    page.goto("/models/1")
    assert page.locator(".sheet-grid li").count() >= 4


def test_versions_and_rollouts_are_said_in_chinese(page, filled):
    """The rows of a card, what two cards have in common or not, and what a rollout waits for."""
    begin_rollout(Path(filled.config.models))
    page.context.add_cookies([{"name": COOKIE, "value": "zh_Hant", "url": filled.url}])
    chinese = translations("zh_Hant").gettext
    for path in ("/models/2", "/models/compare?version=1&version=2"):
        page.goto(path)
        names = page.locator("main table.figures tbody th").all_text_contents()
        assert chinese("promotion gate") in names
        assert not {"created", "backbone", "gold accuracy", "recall of cat"} & set(names)
    page.goto("/rollout")
    waits = page.get_by_text(chinese("Waiting:")).locator("span").inner_text()
    assert waits.startswith(("等待", "直到"))


def test_a_version_shows_its_mistakes_on_gold(page, filled):
    """The surest first, with photos; one that was taken out is left out, and a corrected label is named."""
    page.goto("/models/2")
    sheet = page.locator(".sheet-grid").first
    expect(page.get_by_text("Wrong: 8 of 120.")).to_be_visible()
    assert sheet.locator("li").count() == 7
    sure = [int(text.rstrip("%")) for text in sheet.locator(".confidence").all_inner_texts()]
    assert sure == sorted(sure, reverse=True)
    assert sheet.get_by_text("the label was corrected to this since").count() == 1
    assert sheet.locator("img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


@pytest.mark.parametrize("role", ["viewer", "reviewer"])
def test_only_an_operator_steers(page, filled, role):
    """Others see the pages without a button, and their requests are refused."""
    state = begin_rollout(Path(filled.config.models))
    guard = filled.shown.sessions
    cookie = filled.call(guard.begin(Identified("somebody", role, "address")))
    name = page.context.cookies()[0]["name"]
    page.context.add_cookies([{"name": name, "value": cookie, "url": filled.url}])
    page.goto("/rollout")
    expect(page.get_by_role("link", name="Go back")).to_have_count(0)
    page.goto("/policy/edge-1")
    expect(page.get_by_role("button", name="Preview")).to_have_count(0)
    token = page.evaluate("JSON.parse(document.body.getAttribute('hx-headers'))['X-CSRF-Token']")
    refused = {
        "/rollout/steer": {"action": "promote", "began": f"2-{state.began_ms}"},
        "/policy/edge-1": {"audit_share": "1"},
        f"/doubts/{filled.embedded}/forget": {},
        f"/quarantine/{'7' * 32}/discard": {},
    }
    for path, form in refused.items():
        answer = page.request.post(path, form=form, headers={"X-CSRF-Token": token})
        assert answer.status == 403, path
    assert RolloutFile(Path(filled.config.models) / "rollout-2.json").read() == state
    assert structs.asdict(state)["phase"] == "running"
