"""The demonstration as a newcomer sees it: `make demo ARGS=--stay`, its address opened, labels given."""

import re

import pytest

from cloud.registry.registry import Registry, is_promoted
from demo.synthetic import LOOKS, draw_collection
from tests.console.conftest import DESKTOP, watched
from tests.console.staying import LABELS, LAST, label_as_the_model_says, staying
from tests.console.test_review import expect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]  # two trainings by TensorFlow, on a busy machine

COUNTS = {"train": 10, "gold": 60, "stream": 60}
WAIT_S = 1500.0
WAIT_MS = 1000 * WAIT_S


def test_a_newcomer_labels_and_watches_versions_arrive(browser, tmp_path):
    """The printed address shows version 2 replace version 1; 20 labels bring one more, or say why not."""
    for _ in draw_collection(tmp_path / "photos", counts=COUNTS, looks=list(LOOKS.values()), seed=1):
        pass
    with staying("--photos", str(tmp_path / "photos")) as demo:
        address = demo.address(WAIT_S)
        context = browser.new_context(base_url=address.partition("/?")[0], viewport=DESKTOP, locale="en-GB")
        with watched(context.new_page()) as page, watched(context.new_page()) as models:
            page.goto(address)
            answers = page.locator(".card.answer")
            expect(answers.filter(has_text="version 1").first).to_be_visible(timeout=WAIT_MS)
            models.goto("/models")
            expect(answers.filter(has_text="version 2").first).to_be_visible(timeout=WAIT_MS)
            demo.printed(LAST, WAIT_S)

            page.goto("/review")
            label_as_the_model_says(page, expect, LABELS)
            newest = models.get_by_role("link", name="Version 3")
            expect(newest).to_be_visible(timeout=WAIT_MS)  # by itself: the page was left open
            card = Registry(demo.work / "models").card(3)
            # Of the reviewer and of the newcomer; those of the lane audit judge, and are not trained on.
            labels = sum(sources["human"] for sources in card.examples.values())
            assert COUNTS["train"] + LABELS < labels <= COUNTS["train"] + 2 * LABELS
            if is_promoted(card):
                page.goto("/rollout")
                expect(page.locator("#view")).to_contain_text("Version 3 over version 2", timeout=WAIT_MS)
                page.goto("/now")
                expect(answers.filter(has_text="version 3").first).to_be_visible(timeout=WAIT_MS)
            else:
                newest.click()
                expect(models.locator(".verdict + ul li").first).to_have_text(re.compile("gold accuracy .+%"))
        context.close()
        assert demo.stop() == 0
