"""Bring the console's texts into its message catalogues: `python deploy/catalogue.py [--check]`."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir, extract_from_file
from babel.messages.pofile import read_po, write_po

from cloud.labeling.review_order import REASONS
from deploy.sentences import sentences
from schemas.events import MEANINGS

CONSOLE = Path(__file__).resolve().parent.parent / "console"
OTHERS = [
    CONSOLE.parent / path
    for path in (
        "bus/diagnosis/status_checks.py",
        "cloud/reporting/card_rows.py",
        "cloud/reporting/comparison.py",
        "cloud/rollout/state_machine.py",
    )
]
"""Modules of other parts with sentences that pages show."""
METHODS = [("**.py", "python"), ("**/templates/**.html", "jinja2")]
OPTIONS = {"**/templates/**.html": {"newstyle_gettext": "true", "trimmed": "true"}}
KEYWORDS = DEFAULT_KEYWORDS | {"N_": None, "Sentence": None}


def texts() -> Iterator[str | tuple[str, ...]]:
    """Yield every text of the console; one with a plural form is a tuple."""
    found = extract_from_dir(CONSOLE, METHODS, OPTIONS, KEYWORDS)
    yield from (message for _, _, message, _, _ in found)
    for path in OTHERS:
        yield from (message for _, message, _, _ in extract_from_file("python", path, KEYWORDS))
    yield from sentences()
    # Written by other parts, for people.
    yield from REASONS.values()
    yield from MEANINGS.values()


def updated(path: Path) -> bytes:
    """Return a catalogue with exactly the present texts; translations of others are dropped."""
    known = read_po(io.BytesIO(path.read_bytes()), locale=path.parts[-3])
    catalogue = Catalog(locale=path.parts[-3])
    for text in sorted(set(texts()), key=str):
        before = known.get(text if isinstance(text, str) else text[0])
        catalogue.add(text, string=before.string if before else None)
    out = io.BytesIO()
    write_po(out, catalogue, width=10_000, omit_header=True)
    fields = {
        "Content-Type": "text/plain; charset=utf-8",
        "Language": path.parts[-3],
        "Plural-Forms": catalogue.plural_forms,
    }
    header = "".join(f'"{name}: {value}\\n"\n' for name, value in fields.items())
    return f'msgid ""\nmsgstr ""\n{header}\n'.encode() + out.getvalue()


def main() -> int:
    """Update every catalogue, or print which ones are not up to date."""
    code = 0
    for path in sorted(CONSOLE.glob("locale/*/LC_MESSAGES/console.po")):
        content = updated(path)
        if content == path.read_bytes():
            continue
        if "--check" in sys.argv:
            print(f"{path} is not up to date: run 'make catalogue'")
            code = 1
        else:
            path.write_bytes(content)
    return code


if __name__ == "__main__":
    sys.exit(main())
