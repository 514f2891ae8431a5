"""Parts of self-contained HTML pages: style, tables, confusion matrices and photos. Every text is escaped."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from cloud.registry.model_card import Card

_STYLE = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")


def page(title: str, heading: str, parts: Iterable[str]) -> str:
    """Return a page that needs no other file.

    Args:
        title: text of the window.
        heading: text of the first heading.
        parts: HTML.
    """
    head = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(heading)}</h1>",
    ]
    return "\n".join([*head, *parts]) + "\n</html>\n"


def rows_table(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values; a name that begins with a space is indented."""
    return f"<table class='rows'>{''.join(_row(name, value) for name, value in rows)}</table>"


def _row(name: str, value: str) -> str:
    kind = " class='part'" if name.startswith(" ") else ""
    return f"<tr{kind}><th>{html.escape(name.strip())}</th><td>{html.escape(value)}</td></tr>"


def columns_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with a head."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr><th>{html.escape(first)}</th>{''.join(f'<td>{html.escape(value)}</td>' for value in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<table class='numbers'><thead><tr>{top}</tr></thead>{body}</table>"


def sentences(texts: Iterable[str]) -> str:
    """Return a list of sentences."""
    return f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in texts)}</ul>"


def confusion_table(card: Card) -> str:
    """Return the confusion matrix of a version, with its accuracy; cells with a larger share are darker."""
    if card.metrics is None:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in card.classes)
    rows = ""
    for truth, (name, counts) in enumerate(zip(card.classes, card.metrics.confusion, strict=True)):
        cells = ""
        for predicted, count in enumerate(counts):
            share = count / max(1, sum(counts))
            kind = "right" if truth == predicted else "wrong"
            cells += f"<td class='{kind}' style='--share:{share:.2f}'>{count}<small>{share:.0%}</small></td>"
        rows += f"<tr><th>{html.escape(name)}</th>{cells}</tr>"
    return (
        f"<table class='confusion'><caption>Version {card.version}: {card.metrics.accuracy:.1%}</caption>"
        f"<tr><th>true ↓ predicted →</th>{head}</tr>{rows}</table>"
    )


def photo_figure(image: bytes, caption: str, truth: str | None = None) -> str:
    """Return an inline photo, so that the page stays one file.

    Args:
        image: encoded JPEG or PNG.
        caption: under the photo.
        truth: the true class if the caption has another one; the photo is then marked as wrong.
    """
    kind = "image/png" if image.startswith(b"\x89PNG") else "image/jpeg"
    shown = html.escape(caption, quote=True)
    wrong = "" if truth is None else f" <b>is {html.escape(truth)}</b>"
    return (
        f"<figure{' class=wrong' if truth is not None else ''}>"
        f"<img alt='{shown}' src='data:{kind};base64,{base64.b64encode(image).decode()}'>"
        f"<figcaption>{shown}{wrong}</figcaption></figure>"
    )
