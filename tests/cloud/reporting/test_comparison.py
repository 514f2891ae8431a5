"""Versions side by side."""

from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from cli.main import main
from cloud.evaluation.metrics import measure
from cloud.registry.registry import Registry
from tests.cloud.bundles import CLASSES, card
from tests.html_page import Page


def test_compare_prints_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column per version, a row per figure, a note where the gold sets differ, and a page."""
    monkeypatch.chdir(tmp_path)
    registry = Registry(tmp_path / "models")
    for version, answers in ((3, [0, 1, 1, 1]), (4, [0, 1, 0, 1])):
        metrics = measure(np.eye(2)[answers], np.array([0, 1, 0, 1]), CLASSES)
        (registry.version_dir(version) / "assets.extra").mkdir(parents=True)
        registry.write_card(structs.replace(card(version), metrics=metrics, gold_digest=f"{version}" * 32))
    assert main(["cloud", "compare", "3", "4", "--html", "page.html"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["version", "3", "version", "4"]
    assert any(line.split() == ["recall", "of", "cat", "50.0%", "100.0%"] for line in lines)
    assert any("different gold sets" in line for line in lines)
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert page.count("table", "confusion") == 2
    assert "Version 3 and version 4" in page.text
    assert main(["cloud", "compare", "3", "9"]) == 1
    assert "choose one of 3, 4" in capsys.readouterr().err
