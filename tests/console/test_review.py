"""Rules of the page Review: what a person does with keys, presses and swipes becomes a label, once."""

import time
from contextlib import contextmanager

import msgspec
import pytest

from cloud.dataset.store import Store
from cloud.labeling.review_order import reason_text
from console.pages.review import AHEAD, keys_of
from demo.synthetic import CLASSES
from schemas.class_names import NEITHER
from tests.conftest import DEADLINE_S
from tests.console.conftest import PHONE, running_console, sample, watched


@pytest.fixture(scope="module")
def console(tmp_path_factory, mosquitto):
    """A console with photos enough for all these tests; the teacher always contradicts the model."""
    folder, teacher = tmp_path_factory.mktemp("review"), {"teacher_by": "zoo", "teacher_at_ms": 1}
    photos = [sample(at, teacher_label=CLASSES[(at + 1) % len(CLASSES)], **teacher) for at in range(150)]
    Store.open(str(folder / "dataset.lance")).upsert(photos)
    with running_console(folder, mosquitto, samples=0) as running:
        yield running


def expect(what):
    """Return Playwright's assertion, which waits."""
    from playwright.sync_api import expect as made  # noqa: PLC0415  # skipped without it

    made.set_options(timeout=DEADLINE_S * 1000)
    return made(what)


def shown(page) -> str:
    """Return the id of the photo that is shown."""
    return page.locator("[data-photo]:visible").first.get_attribute("data-photo")


def given(page, count: int) -> None:
    """Wait until the page has counted this many labels."""
    expect(page.locator("[data-given]")).to_have_text(str(count))


def test_twenty_labels_by_keys_arrive_in_the_dataset(console, page, record_property):
    """Each key labels the photo that is shown; the labels are the person's, as `mosquitto_sub` sees them."""
    page.goto("/review")
    wanted, began = {}, time.monotonic()
    for number in range(20):
        key, label = [("1", "cat"), ("d", "dog"), ("0", NEITHER)][number % 3]
        wanted[shown(page)] = label
        page.keyboard.press(key)
        given(page, number + 1)
    record_property("seconds", round(time.monotonic() - began, 1))
    assert len(wanted) == 20
    console.wait_until(lambda: wanted.keys() <= console.labels().keys())
    stored = console.labels()
    assert {photo_id: stored[photo_id][0] for photo_id in wanted} == wanted
    person = {stored[photo_id][1] for photo_id in wanted}
    published = {}
    while published.keys() != wanted.keys():  # a label may be sent again before it is confirmed
        message = msgspec.json.decode(console.call(console.feedback.get()).payload)
        published[message["photo_id"]] = message["label"], message["by"]
    assert published == {photo_id: (label, *person) for photo_id, label in wanted.items()}


def test_twenty_labels_by_touch_on_a_phone(console, phone, record_property):
    """A tap on a class labels; a swipe to the right takes the model's label, to the left shows it later."""
    phone.goto("/review")
    wanted, began = {}, time.monotonic()
    for number in range(20):
        photo, model = shown(phone), phone.locator("[data-photo]:visible").get_attribute("data-model")
        if number % 2:
            wanted[photo] = model
            swipe(phone, 200)
        else:
            wanted[photo] = "dog"
            phone.locator("button.class", has_text="dog").tap()
        given(phone, number + 1)
    record_property("seconds", round(time.monotonic() - began, 1))
    later = shown(phone)
    swipe(phone, -200)
    expect(phone.locator(f"[data-photo='{later}']")).to_have_count(0)
    given(phone, 20)
    console.wait_until(lambda: wanted.keys() <= console.labels().keys())
    assert {photo: console.labels()[photo][0] for photo in wanted} == wanted
    assert later not in console.labels()


def swipe(page, by_px: int) -> None:
    """Drag the photo sideways by a number of pixels, with touch events as the browser gets them."""
    box = page.locator(".frame:visible").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    finger = page.context.new_cdp_session(page)
    for kind, at in [("Start", 0), *(("Move", by_px * step / 4) for step in range(1, 5))]:
        finger.send(
            "Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": [{"x": x + at, "y": y}]}
        )
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    finger.detach()


def test_the_next_photo_is_there_before_the_label_is_sent(console, page):
    """With its picture, why it is asked, and the labels of model and teacher."""
    page.goto("/review")
    labelled, held = shown(page), []
    page.route("**/review/label", lambda one: held.append(one), times=1)  # noqa: PLW0108  # it sets an attribute
    page.keyboard.press("1")
    following = page.locator("[data-photo]:visible")
    expect(following).not_to_have_attribute("data-photo", labelled)
    assert following.locator("img").evaluate("image => image.complete && image.naturalWidth > 0")
    listed = console.shown.desk._listed[shown(page)]
    names, values = (following.locator(f".opinions {tag}").all_inner_texts() for tag in ("dt", "dd"))
    told = dict(zip(names, values, strict=True))
    assert told["Model"] == f"{listed.edge_label} {listed.confidence:.0%}"
    assert (told["Teacher"], told["Why this photo"]) == (listed.teacher_label, reason_text(listed))
    assert told["Why this photo"]
    assert labelled not in console.labels()
    held[0].continue_()
    given(page, 1)
    console.wait_until(lambda: labelled in console.labels())


def test_a_label_arrives_although_the_page_is_left(console, page):
    """It was counted and waits for a connection when the page is closed, as on a slow line."""
    page.goto("/review")
    labelled = shown(page)
    page.evaluate("() => { for (let at = 0; at < 6; at++) new EventSource('/live') }")
    console.wait_until(lambda: len(console.shown.broadcast) >= 6)  # no more for one host in Chromium
    page.keyboard.press("1")
    given(page, 1)
    assert labelled not in console.shown.desk._labelled
    page.close()
    console.wait_until(lambda: labelled in console.labels())


def test_a_new_class_is_typed(console, page):
    """A typed name becomes its own class, with a button for the next photo."""
    page.goto("/review")
    first = shown(page)
    page.keyboard.press("o")
    page.keyboard.type("red panda")
    page.keyboard.press("Enter")
    given(page, 1)
    expect(page.locator("button.class", has_text="red panda")).to_be_visible()
    console.wait_until(lambda: console.labels().get(first, ("",))[0] == "red panda")


def test_several_photos_get_one_label(console, page):
    """In the grid, the chosen photos get one label together, and no other one does."""
    page.goto("/review?view=grid")
    tiles = page.locator(".tile")
    expect(tiles).not_to_have_count(0)
    chosen = [tiles.nth(at).get_attribute("data-photo") for at in (0, 2, 3)]
    other = tiles.nth(1).get_attribute("data-photo")
    for photo_id in chosen:
        page.locator(f".tile[data-photo='{photo_id}'] input").check()
    page.locator("button.class", has_text="cat").click()
    given(page, 3)
    console.wait_until(lambda: set(chosen) <= console.labels().keys())
    assert {console.labels()[photo_id][0] for photo_id in chosen} == {"cat"}
    assert other not in console.labels()


def test_the_key_that_chooses_all_photos_is_no_class_s():
    """In a grid; one by one it is the initial of a class, as in the terminal."""
    classes = ["apple", "bee", "neat"]
    assert keys_of(classes, grid=False) == {"apple": ["1", "a"], "bee": ["2", "b"], "neat": ["3"]}
    assert keys_of(classes, grid=True)["apple"] == ["1"]


def test_the_grid_says_that_nothing_is_chosen(console, page):
    """A key without a chosen photo labels nothing."""
    page.goto("/review?view=grid")
    page.keyboard.press("1")
    expect(page.get_by_role("status").filter(has_text="Choose photos first.")).to_be_visible()


def test_single_keys_can_be_turned_off(console, page):
    """WCAG 2.1.4: who speaks to it, or types by accident, labels nothing; the browser remembers it."""
    page.goto("/review")
    first, keys = shown(page), page.get_by_label("Label by single keys")
    keys.uncheck()
    page.reload()
    expect(keys).not_to_be_checked()
    page.keyboard.press("1")
    page.keyboard.press("n")
    assert shown(page) == first
    given(page, 0)
    keys.check()
    page.keyboard.press("1")
    given(page, 1)


def test_undo_and_later_say_that_they_are_done(page):
    """A screen reader announces the effect of a press, as it does for a label."""
    page.goto("/review")
    page.get_by_role("button", name="Later").click()
    expect(page.get_by_role("status").filter(has_text="Put off: it comes again")).to_be_visible()


def test_two_people_never_see_the_same_photo(console, browser, cookies, page):
    """Another browser gets other photos, also while both label."""
    with another(console, browser) as other:
        seen: dict[str, set[str]] = {"one": set(), "other": set()}
        page.goto("/review")
        other.goto("/review")
        for number in range(5):
            for name, reviewer in (("one", page), ("other", other)):
                shown(reviewer)  # on a busy machine the next photos may not have arrived yet
                seen[name] |= shown_ids(reviewer)
                reviewer.keyboard.press("1")
                given(reviewer, number + 1)
        assert seen["one"]
        assert seen["other"]
        assert not seen["one"] & seen["other"]


def test_a_page_that_slept_shows_no_photo_of_others(console, browser, page, monkeypatch):
    """After its leases ended it renews them, and drops photos that others have or have labelled."""
    page.clock.install()
    page.goto("/review")
    slept = shown_ids(page)
    leases = console.shown.desk._leases
    with another(console, browser) as other:
        monkeypatch.setattr(leases, "_clock", lambda: time.monotonic() + console.config.lease_s + 1)
        other.goto("/review")
        taken = shown_ids(other)
        assert taken & slept
        labelled = shown(other)
        other.keyboard.press("1")
        given(other, 1)
        # As when a laptop is opened again: timers are due once.
        page.clock.fast_forward(int(1000 * console.config.lease_s) + 1000)
        expect(page.locator(f"[data-photo='{labelled}']")).to_have_count(0)
        expect(page.locator("[data-photo]")).to_have_count(AHEAD)
        assert not shown_ids(page) & (taken | shown_ids(other))


@contextmanager
def another(console, browser):
    """Open a page for another person, in their own browser."""
    context = browser.new_context(base_url=console.url)
    context.new_page().goto(address(console))
    with watched(context.pages[0]) as other:
        yield other
    context.close()


def shown_ids(page) -> set[str]:
    """Return the ids of all photos in the page, also of those that are shown next."""
    return set(page.locator("[data-photo]").evaluate_all("nodes => nodes.map(node => node.dataset.photo)"))


def address(console) -> str:
    """Return the present one-time address."""
    return (console.folder / "console" / "address").read_text().strip()


def test_undo_takes_a_label_back_before_it_is_sent(tmp_path, mosquitto, browser):
    """The photo is shown again, to nobody else, and no label of it leaves the console."""
    with running_console(tmp_path, mosquitto, samples=6, undo_s=600.0) as console:
        context = browser.new_context(base_url=console.url, viewport=PHONE)
        context.new_page().goto(console.address)
        with watched(context.pages[0]) as page:
            page.goto("/review")
            first = shown(page)
            held = []
            page.route("**/review/more", lambda one: held.append(one), times=1)  # noqa: PLW0108  # it sets an attribute
            page.evaluate("document.body.dispatchEvent(new Event('live-dataset'))")
            page.keyboard.press("1")
            given(page, 1)
            console.wait_until(lambda: len(console.shown.desk.sender) == 1)
            # A late answer still has the photo as labelled, as it was at the time of the request.
            late = held[0].fetch()
            page.locator("[data-undo]").click()
            given(page, 0)
            held[0].fulfill(response=late)
            expect(page.locator("[data-photo]")).to_have_count(AHEAD + 1)
            expect(page.locator("[data-photo]:visible")).to_have_attribute("data-photo", first)
            with another(console, browser) as other:
                other.goto("/review")
                assert shown_ids(other)
                assert not shown_ids(other) & shown_ids(page)
        context.close()
        assert len(console.shown.desk.sender) == 0
        assert console.labels() == {}
