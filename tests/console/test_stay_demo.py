"""The demonstration as a newcomer sees it: `make demo ARGS=--stay`, its address opened, labels given."""

import itertools
import re
from pathlib import Path

import pytest

from cloud.registry.registry import Registry, is_promoted
from tests.cloud import tiny
from tests.console.conftest import DESKTOP, watched
from tests.console.staying import LABELS, LAST, label_as_the_model_says, staying
from tests.console.test_review import expect
from tests.nodes import photo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]  # two trainings by TensorFlow, on a busy machine

COUNTS = {"train": 10, "gold": 160, "stream": 60}  # the gate wants 150 gold photos
WAIT_S = 1500.0
WAIT_MS = 1000 * WAIT_S


def draw(folder: Path) -> None:
    """Draw a collection of two colours, which the miniature backbone tells apart."""
    numbers = itertools.count()
    for split, size in COUNTS.items():
        for colour in ("blue", "red"):
            (folder / split / colour).mkdir(parents=True)
            for number in itertools.islice(numbers, size // 2):
                (folder / split / colour / f"{number}.jpg").write_bytes(photo(number, colour))


def test_a_newcomer_labels_and_watches_versions_arrive(browser, tmp_path):
    """The printed address shows version 2 replace version 1; 20 labels bring one more, or say why not."""
    draw(tmp_path / "photos")
    # In miniature: tests/demo/test_run.py runs the default backbone.
    with staying("--photos", str(tmp_path / "photos"), "--backbone", tiny.NAME) as demo:
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
            registry = Registry(demo.work / "models")
            first, second, card = map(registry.card, (1, 2, 3))
            # Of the reviewer and of the newcomer; those of the lane audit judge, and are not trained on.
            labels = sum(sources["human"] for sources in card.examples.values())
            assert COUNTS["train"] + LABELS < labels <= COUNTS["train"] + 2 * LABELS
            # The second version is in service whatever its verdict; a rollout begins from the champion.
            if is_promoted(card) and card.parent == 2:
                page.goto("/rollout")
                expect(page.locator("#view")).to_contain_text("Version 3 over version 2", timeout=WAIT_MS)
                page.goto("/now")
                expect(answers.filter(has_text="version 3").first).to_be_visible(timeout=WAIT_MS)
            else:
                newest.click()
                expect(models.locator(".verdict + ul li").first).to_have_text(re.compile("gold accuracy .+%"))
        context.close()
        # Colours are easy: the first version has no mistakes either, and the demonstration says so.
        better = second.metrics.accuracy > first.metrics.accuracy
        if not better:
            demo.printed("version 2 is not better than version 1", WAIT_S)
        assert demo.stop() == (0 if better else 1)
