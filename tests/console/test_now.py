"""Rules of the pages Now and Events: they follow events without a reload."""

import pytest

from demo.synthetic import draw
from schemas.codec import content_id
from schemas.messages import Forget, Photo
from schemas.topics import FORGET, PHOTO
from tests.console.test_review import expect


def test_an_answer_appears_with_its_photo(console, page):
    """A page that is open shows a new answer and its photo, without a reload, until it is forgotten."""
    page.goto("/now")
    image = draw("dog", 7)
    photo = Photo(photo_id=content_id(image), node="edge-1", device="porch", image=image)
    console.call(console.bus.publish(PHOTO, photo, node="edge-1", device="porch"))
    console.answer(photo_id=photo.photo_id, device="porch", label="dog", confirmed=False)
    card = page.locator(".answer", has_text="porch")
    expect(card.locator(".label")).to_contain_text("dog")
    expect(card.locator(".facts")).to_contain_text("not confirmed")
    expect(card.get_by_role("img")).to_have_attribute("src", f"/previews/{photo.photo_id}")
    assert page.request.get(f"/previews/{photo.photo_id}").status == 200
    order = Forget(node="edge-1", order_id="0" * 32, photo_ids=[photo.photo_id], at_ms=1)
    console.call(console.bus.publish(FORGET, order, node="edge-1"))
    console.wait_until(lambda: photo.photo_id not in console.shown.previews)
    assert page.request.get(f"/previews/{photo.photo_id}").status == 404


def test_a_filter_stays_while_answers_arrive(console, page):
    """A chosen class hides other answers, also those that arrive later."""
    console.answer(device="attic", label="cat")
    console.answer(device="barn", label="dog")
    console.wait_until(lambda: {one.device for one in console.shown.live.latest()} >= {"attic", "barn"})
    page.goto("/now")
    page.get_by_label("Class").select_option("cat")
    expect(page.locator(".answer", has_text="barn")).to_have_count(0)
    console.answer(device="cellar", label="dog")
    console.answer(device="attic", label="cat", model_version=9)
    expect(page.locator(".answer", has_text="attic")).to_contain_text("version 9")
    expect(page.locator(".answer", has_text="cellar")).to_have_count(0)


def test_what_is_wrong_is_said_with_advice(console, page):
    """A component that goes offline is named at once, with what to do about it."""
    console.report(node="edge-7")
    page.goto("/now")
    console.report(node="edge-7", state="offline", reason="the connection broke")
    problem = page.locator(".problems li", has_text="edge-7")
    expect(problem).to_contain_text("the connection broke")
    expect(problem).to_contain_text("start it with 'gleaner edge --node edge-7'")


def test_an_event_appears_by_itself(console, page):
    """The page Events shows what happens while it is open."""
    page.goto("/events")
    console.happen("round.failed", reason="no labelled photos of class 'dog'")
    expect(page.locator(".timeline li").first).to_contain_text("no labelled photos of class 'dog'")


def test_the_page_survives_a_broker_that_goes_away(console, page):
    """Answers arrive again once the broker is back, without a reload."""
    page.goto("/now")
    console.broker.stop()
    console.broker.start()
    console.call(console.bus.connected(after=1))
    console.call(console.shown.bus.connected(after=1))
    console.answer(device="after")
    expect(page.locator(".answer", has_text="after")).to_be_visible()


def test_eight_windows_share_a_stream(console, page):
    """More pages than a browser has connections are live, also after the one with the stream was closed."""
    page.goto("/now")
    others = [page.context.new_page() for _ in range(7)]
    for other in others:
        other.goto("/now")
    console.answer(device="shared")
    for one in (page, *others):
        expect(one.locator(".answer", has_text="shared")).to_be_visible()
    assert len(console.shown.broadcast) == 1
    page.close()
    console.wait_until(lambda: len(console.shown.broadcast) == 1)
    console.answer(device="inherited")
    for one in others:
        expect(one.locator(".answer", has_text="inherited")).to_be_visible()


@pytest.mark.parametrize(("language", "html"), [("en", "en"), ("zh_Hant", "zh-Hant")])
def test_the_language_is_chosen_and_kept(console, page, language, html):
    """The buttons of the languages change the page, and the next one."""
    page.goto("/events")
    page.locator(f".rail button[value='{language}']").click()
    expect(page.locator("html")).to_have_attribute("lang", html)
    page.goto("/now")
    expect(page.locator("html")).to_have_attribute("lang", html)
