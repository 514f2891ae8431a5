"""One demonstration, as a newcomer starts it with `make demo ARGS=--stay`: opened, labelled in, and ended."""

import io
import itertools
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from cloud.registry.registry import Registry, is_promoted
from tests.cloud import tiny
from tests.console.conftest import DESKTOP, watched
from tests.console.staying import LABELS, LAST, Staying, label_as_the_model_says, staying
from tests.console.test_review import expect
from tests.demo.conftest import Leftovers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]  # three trainings by TensorFlow, on a busy machine

COUNTS = {"train": 10, "gold": 160, "stream": 60}  # the gate wants 150 gold photos
WAIT_S = 1500.0
WAIT_MS = 1000 * WAIT_S


def shade(number: int) -> tuple[str, bytes]:
    """Return the class and the picture of a photo between red and blue, of uneven brightness."""
    draw = random.Random(number)
    blue = draw.random()
    pattern = Image.frombytes("L", (9, 8), bytes(draw.randrange(120, 256) for _ in range(72)))
    bands = [
        pattern.point(lambda value, share=share: round(value * share)).resize((90, 80))
        for share in (1 - 0.85 * blue, 0.15, 0.15 + 0.85 * blue)
    ]
    out = io.BytesIO()
    Image.merge("RGB", bands).save(out, "JPEG")
    return ("blue" if blue > 0.5 else "red"), out.getvalue()


def draw_shades(folder: Path) -> None:
    """Draw a collection of two classes that ten labels do not tell apart well, and thirty do better."""
    numbers = itertools.count()
    for split, size in COUNTS.items():
        left = dict.fromkeys(("blue", "red"), size // 2)
        for label in left:
            (folder / split / label).mkdir(parents=True)
        while any(left.values()):
            number = next(numbers)
            label, picture = shade(number)
            if left[label]:
                left[label] -= 1
                (folder / split / label / f"{number}.jpg").write_bytes(picture)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staying]:
    """The demonstration that all tests of this module look at, with the miniature backbone."""
    photos = tmp_path_factory.mktemp("shades")
    draw_shades(photos)
    with staying("--photos", str(photos), "--backbone", tiny.NAME) as demo:
        yield demo


def test_a_newcomer_labels_and_watches_versions_arrive(browser, demo):
    """The printed address shows version 2 replace version 1; 20 more labels give another, or a reason."""
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
        # A rollout begins from the champion, which is in service again if it is not version 2.
        if is_promoted(card):
            page.goto("/rollout")
            expect(page.locator("#view")).to_contain_text(
                f"Version 3 over version {card.parent}", timeout=WAIT_MS
            )
            page.goto("/now")
            expect(answers.filter(has_text="version 3").first).to_be_visible(timeout=WAIT_MS)
        else:
            newest.click()
            expect(models.locator(".verdict + ul li").first).to_have_text(re.compile("gold accuracy .+%"))
    context.close()


def test_the_whole_loop_with_few_photos(demo):
    """All photos are answered, version 2 is better, and after Ctrl-C only the report is left."""
    demo.printed(LAST, WAIT_S)  # the test before it needs a browser, and may have been skipped
    leftovers = Leftovers(f"TMPDIR={demo.folder}", demo.folder)
    assert leftovers.processes() != []
    assert leftovers.folders() != []
    assert demo.stop() == 0
    rows = demo.rows()
    # 60 of the stream, and 150 while the model is swapped; as many again where that takes longer.
    assert (int(rows["photos sent"]) - COUNTS["stream"]) % 150 == 0
    assert (rows["photos answered"], rows["photos lost"]) == (rows["photos sent"], "0")
    assert rows["failed during the swap"].startswith("0 of ")
    assert rows["version 1, 10 labels"].split()[1:5] == ["of", "160", "gold", "photos"]
    assert rows["20 labels by the reviewer"].startswith("+")
    assert [path.name for path in demo.out.iterdir()] == ["report.html"]
    assert leftovers.processes() == []
    assert leftovers.folders() == []
