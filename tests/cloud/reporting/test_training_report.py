"""The report of a version."""

import io
import re

import numpy as np
from msgspec import structs
from PIL import Image

from cloud.dataset.example import Example
from cloud.evaluation.metrics import measure
from cloud.evaluation.paired_comparison import Comparison
from cloud.evaluation.promotion_gate import Verdict
from cloud.evaluation.variant_gate import VariantVerdict
from cloud.registry.model_card import Candidate, Card
from cloud.reporting.training_report import Answers, ReportData, render_report
from tests.cloud.bundles import card
from tests.html_page import Page

CLASSES = ["<cat>", "dog & co"]
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.05, 0.95]])
TRUTH = np.array([0, 1, 1, 0])  # the last two are wrong


def photo() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 300), "red").save(buffer, "PNG")
    return buffer.getvalue()


def full_card() -> Card:
    compared = Comparison(4, 0.5, 0.75, 0, 1, 1.0, -0.1, 0.6)
    return structs.replace(
        card(7, Verdict("keep", 6, ["recall of <cat> fell"], compared, None, None)),
        classes=CLASSES,
        metrics=measure(PROBABILITIES, TRUTH, CLASSES),
        gold_digest="a" * 32,
        examples={"<cat>": {"human": 3, "teacher": 1}, "dog & co": {"human": 2}},
        candidates=[Candidate("human", 5, 5, 0.3, 0.8, 0.5)],
        variants=[VariantVerdict("int8", served=False, reasons=["no gold photos to judge on"])],
        left_out={"the picture cannot be decoded": 2},
    )


def gold() -> Answers:
    image = photo()
    return Answers(PROBABILITIES, TRUTH, [Example(f"{n:032x}", image, "x", "human") for n in range(4)])


def test_the_page_has_everything_in_one_file() -> None:
    """Metrics, confusion, recall, reliability, mistakes, candidates, gate, variants and rows left out."""
    text = render_report(full_card(), ReportData(gold(), None, {"human": [(1, 2.0), (9, 0.5)]}))
    page = Page(text)  # every tag is closed
    assert not re.search(r"https?:|//|<script|url\(|@import", re.sub(r"base64,[\w+/=]*", "", text))
    for words in (
        "50.0% of 4 photos", "Promotion gate: keep", "recall of <cat> fell", "Wrong on gold: 2 of 4",
        "Reliability",
        "→ human", "no gold photos to judge on", "the picture cannot be decoded",
        "-10.0 to +60.0 points", "<cat>",
        "dog & co", "Loss by step",
    ):  # fmt: skip
        assert words in page.text
    assert page.count("figure", "wrong") == 2
    first, second = (at for at in re.finditer("<figcaption>", text))
    assert "95%" in text[first.end() : second.start()], "the surest mistake comes first"
    images = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert all(image is not None and len(image) < 4000 for image in images), "thumbnails, not the photos"


def test_a_version_without_gold_has_a_report() -> None:
    """It explains how to get a gold set, and shows the reliability on held-out labels."""
    page = Page(render_report(card(1), ReportData(None, Answers(PROBABILITIES, TRUTH))))
    assert "There is no gold set: import one" in page.text
    assert "Reliability on held-out labels" in page.text
    assert "not measured" in page.text


def test_a_version_without_any_answers_has_a_report() -> None:
    """As an adopted model without a dataset."""
    assert "Version 1" in Page(render_report(card(1), ReportData())).text
