import os
import subprocess
import sys
from pathlib import Path

from cli import catalogue, exit_codes
from tests.conftest import ROOT


def test_the_site_builds_without_a_broken_link(tmp_path):
    """`make docs` collects all pages; a link or an anchor that leads nowhere is an error."""
    pages = tmp_path / "pages"
    collected = subprocess.run(
        [sys.executable, "deploy/docs_site.py", str(pages)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"pages in {pages}" in collected.stdout
    config = (ROOT / "mkdocs.yml").read_text().replace(".cache/docs", str(pages))
    (tmp_path / "mkdocs.yml").write_text(config.replace("site_dir: site", f"site_dir: {tmp_path / 'site'}"))
    built = subprocess.run(
        [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "--quiet"],
        cwd=tmp_path, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    assert (tmp_path / "site/docs/operations.html").is_file()
    assert (tmp_path / "site/search/search_index.json").is_file()


def test_the_exit_codes_are_documented():
    """The page has the table of the code."""
    page = (ROOT / "docs/install.md").read_text()
    rows = [f"| {code} | {meaning} |" for code, meaning in exit_codes.MEANINGS.items()]
    assert [row for row in rows if row not in page] == []


def test_the_catalogue_finds_events_and_counters():
    """It reads the source, also names that are completed at run time."""
    events = {one.name: one.level for one in catalogue.log_events()}
    assert events["service.started"] == "info"
    assert events["bus.flapping"] == "warning"
    counted = {one.name for one in catalogue.counters()}
    assert {"bus.disconnected", "receipt.…"} <= counted
