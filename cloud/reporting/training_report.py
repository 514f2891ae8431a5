"""The report of a version: one self-contained HTML page, written by every training and adoption."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cloud.dataset.example import Example
from cloud.evaluation.paired_comparison import Comparison
from cloud.labeling.contact_sheet import encoded_thumbnail
from cloud.modeling.arrays import Floats, Ints
from cloud.registry.gold_mistakes import GoldMistakes, find_mistakes
from cloud.registry.model_card import Card
from cloud.reporting.card_rows import card_rows
from cloud.reporting.page import columns_table, confusion_table, page, photo_figure, rows_table, sentences
from cloud.reporting.plots import curve, recall_bars, reliability_bins, reliability_diagram

_MAX_WRONG = 24
_THUMBNAIL_PX = 120
_WHOSE = {"own": "its own head", "aligned": "the aligned head"}
_NO_GOLD = "There is no gold set: import one with 'gleaner cloud import DIR --hold-out 20%'."


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of a version to labelled photos that it was not trained on.

    Attributes:
        probabilities: `[N, K]`.
        truth: `[N]`.
        photos: N photos; empty if they are not shown.
    """

    probabilities: Floats
    truth: Ints
    photos: Sequence[Example] = ()


@dataclass(frozen=True, slots=True)
class ReportData:
    """Data that a report shows in addition to the card.

    Attributes:
        gold: answers to the gold set, None without one.
        held_out: answers to held-out labels, None without any.
        losses: loss by step, by training from scratch; empty for frozen backbones.
    """

    gold: Answers | None = None
    held_out: Answers | None = None
    losses: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)

    def mistakes(self, card: Card) -> GoldMistakes | None:
        """Return what the version answered wrong on the gold set, None without one."""
        if self.gold is None:
            return None
        ids = [photo.photo_id for photo in self.gold.photos]
        return find_mistakes(self.gold.probabilities, self.gold.truth, ids, card.classes)


def render_report(card: Card, evidence: ReportData) -> str:
    """Return the report of a version as HTML, with thumbnails of gold photos that it gets wrong."""
    return page(f"Gleaner: version {card.version}", f"Version {card.version}", _parts(card, evidence))


def _parts(card: Card, evidence: ReportData) -> Iterator[str]:
    yield rows_table(card_rows(card))
    yield from _gate(card)
    if card.metrics is not None:
        yield "<h2>Confusion on gold</h2>"
        yield confusion_table(card)
        yield "<h2>Recall by class</h2><p>With 95 % intervals: few photos of a class tell little.</p>"
        yield recall_bars(card.metrics, card.classes)
    else:
        yield f"<p>{_NO_GOLD}</p>"
    yield from _reliability(evidence)
    if evidence.gold is not None and (found := evidence.mistakes(card)) is not None:
        yield from _mistakes(found, evidence.gold.photos)
    if any(evidence.losses.values()):
        yield "<h2>Loss by step</h2>"
        yield curve(evidence.losses, "Loss by step")
    yield from _candidates(card)
    yield from _groups(card)
    yield from _variants(card)
    yield from _examples(card)


def _gate(card: Card) -> Iterator[str]:
    if card.verdict is None:
        return
    yield f"<h2>Promotion gate: {card.verdict.decision}</h2>"
    yield sentences(card.verdict.reasons)
    compared = (
        ("gold", card.verdict.gold),
        ("audit", card.verdict.audit),
        ("held-out labels", card.verdict.held_out),
    )
    rows = [
        (
            kind,
            str(one.photos),
            f"{one.champion:.1%}",
            f"{one.challenger:.1%}",
            f"{100 * one.low:+.1f} to {100 * one.high:+.1f} points",
            f"{one.p_value:.3f}",
        )
        for kind, one in compared
        if one is not None
    ]
    if rows:
        head = ("photos of", "number", f"version {card.verdict.champion}", f"version {card.version}")
        yield columns_table((*head, "95 % interval of the gain", "p (McNemar)"), rows)


def _reliability(evidence: ReportData) -> Iterator[str]:
    for title, answers in (("gold", evidence.gold), ("held-out labels", evidence.held_out)):
        if answers is not None and len(answers.truth):
            confidence = answers.probabilities.max(axis=1)
            correct = answers.probabilities.argmax(axis=1) == answers.truth
            yield f"<h2>Reliability on {title}</h2><p>Dots on the line: as often right as it is sure.</p>"
            yield reliability_diagram(reliability_bins(confidence, correct))
            return


def _mistakes(found: GoldMistakes, photos: Sequence[Example]) -> Iterator[str]:
    yield f"<h2>Wrong on gold: {found.wrong} of {found.photos}</h2>"
    surest, images = found.surest[:_MAX_WRONG], {photo.photo_id: photo.image for photo in photos}
    if not surest:
        return
    yield f"<p>The {len(surest)} that it is surest of. Check their labels too.</p><div class='sheet'>"
    for one in surest:
        small = encoded_thumbnail(images[one.photo_id], (_THUMBNAIL_PX, _THUMBNAIL_PX))
        yield photo_figure(small, f"{one.answer} {one.confidence:.0%}", one.truth)
    yield "</div>"


def _candidates(card: Card) -> Iterator[str]:
    yield "<h2>Candidates</h2>"
    rows = [
        (
            f"{'→ ' if one.name == card.chosen else ''}{one.name}",
            str(one.photos),
            str(one.held_out_photos),
            _figure(one.held_out_loss, "{:.4f}"),
            _figure(one.held_out_accuracy, "{:.1%}"),
            _figure(one.gold_accuracy, "{:.1%}"),
        )
        for one in card.candidates
    ]
    yield columns_table(
        ("candidate", "photos", "held-out labels", "loss on them", "accuracy on them", "gold accuracy"), rows
    )


def _groups(card: Card) -> Iterator[str]:
    if not card.groups:
        return
    yield "<h2>Groups of devices</h2>"
    before = {} if card.verdict is None else card.verdict.groups
    rows = [
        (
            one.name,
            "yes" if one.served else "no",
            str(one.labels),
            f"{_figure(one.accuracy, '{:.1%}')} → {_figure(one.group_accuracy, '{:.1%}')}",
            f"{_figure(one.loss, '{:.4f}')} → {_figure(one.group_loss, '{:.4f}')}",
            f"{_figure(one.gold_accuracy, '{:.1%}')} → {_figure(one.group_gold_accuracy, '{:.1%}')}",
            _against_champion(before.get(one.name)),
            one.reason or _WHOSE.get(one.source, f"the head of {one.source}"),
        )
        for one in card.groups
    ]
    head = ("group", "in the bundle", "held-out labels", "accuracy on them", "loss on them", "gold accuracy")
    yield "<p>With the shared head, then with the best head of a group.</p>"
    yield columns_table((*head, "from the champion to this version", "head"), rows)


def _against_champion(one: Comparison | None) -> str:
    return "-" if one is None else f"{one.champion:.1%} → {one.challenger:.1%} on {one.photos} photos"


def _variants(card: Card) -> Iterator[str]:
    if not card.variants:
        return
    yield "<h2>LiteRT variants</h2>"
    rows = [
        (
            one.name,
            "yes" if one.served else "no",
            _figure(None if one.gold is None else one.gold.challenger, "{:.1%}"),
            "; ".join(one.reasons),
        )
        for one in card.variants
    ]
    yield columns_table(("variant", "in the bundle", "gold accuracy", "reasons"), rows)


def _examples(card: Card) -> Iterator[str]:
    yield "<h2>Photos</h2>"
    sources = sorted({source for counts in card.examples.values() for source in counts})
    rows = [
        (name, *(str(counts.get(source, 0)) for source in sources)) for name, counts in card.examples.items()
    ]
    yield columns_table(("labelled by", *sources), rows)
    if card.left_out:
        yield "<h3>Left out</h3>"
        yield columns_table(("reason", "rows"), [(why, str(count)) for why, count in card.left_out.items()])


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
