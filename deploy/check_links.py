"""Visit every link of the documents to another site; needs the Internet.

Each address is visited once, and printed with the pages that name it.
"""

import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from docs_site import ROOT, pages

_LINK: Final = re.compile(r"\]\((https?://[^)\s]+)\)")
_TIMEOUT_S: Final = 20.0
_AGENT: Final = {"User-Agent": "Mozilla/5.0 (link check of documentation)"}


def external_links(documents: list[Path]) -> dict[str, list[str]]:
    """Return the documents that link to each address, sorted."""
    found: dict[str, list[str]] = {}
    for document in documents:
        for url in _LINK.findall(document.read_text(encoding="utf-8")):
            places = found.setdefault(url, [])
            if (place := str(document.relative_to(ROOT))) not in places:
                places.append(place)
    return dict(sorted(found.items()))


def unreachable(url: str) -> str | None:
    """Return why an address cannot be opened, None if it can."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=_AGENT), timeout=_TIMEOUT_S):  # noqa: S310  # addresses of our documents
            return None
    except (urllib.error.URLError, OSError, ValueError) as error:
        return str(error)


def main() -> int:
    """Print each address with its state; return 1 if one cannot be opened."""
    failed = 0
    for url, places in external_links(pages()).items():
        reason = unreachable(url)
        failed += reason is not None
        outcome = "ok" if reason is None else f"FAIL: {reason}"
        print(f"{url} ({', '.join(places)}): {outcome}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
