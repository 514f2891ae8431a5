"""Collect the pages of the documentation site: `docs_site.py DIR`; then `mkdocs build` makes the site.

The pages are the Markdown files of the whole repository, in their places, so that links between them
work on the site as they do in the repository. Other files that a page links to are copied too.
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_FOLDERS = (".", "docs", "docs/decisions", "deploy/kubeedge", "deploy/kubeedge/lab", "examples")
_LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")


def main(target: Path) -> None:
    """Copy the pages and what they link to into a new folder."""
    shutil.rmtree(target, ignore_errors=True)
    found = pages()
    linked = {file for page in found for file in _linked(page)}
    for file in {*found, *linked}:
        copy = target / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    print(f"{len(found)} pages in {target}")


def pages() -> list[Path]:
    """Return the Markdown files of the repository."""
    return [page for folder in _FOLDERS for page in sorted((ROOT / folder).glob("*.md"))]


def _linked(page: Path) -> list[Path]:
    """Return the files of the repository that a page links to."""
    targets = _LINK.findall(page.read_text(encoding="utf-8"))
    files = [(page.parent / target).resolve() for target in targets if "://" not in target]
    return [file for file in files if file.is_file() and file.is_relative_to(ROOT)]


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
