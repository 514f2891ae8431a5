"""From Keras code to version 2, by the commands."""

import runpy
from pathlib import Path

import pytest

from cli.main import main
from cloud.registry.registry import Registry
from tests.cloud.training.test_adoption import CLASSES, photo
from tests.conftest import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


def test_from_nothing_to_version_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A MobileNetV2-like network is written, trained on, and its second version judged against the first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["backbone.py", "mine.keras"])
    runpy.run_path(str(ROOT / "examples/own-model/backbone.py"), run_name="__main__")
    train = ["cloud", "train", "--backbone", "mine.keras:signed", "--cache", "cache", "--no-tflite"]
    for version, first in ((1, 0), (2, 50)):
        for label in CLASSES:
            (tmp_path / f"photos-{version}" / label).mkdir(parents=True)
            for seed in range(8):
                path = tmp_path / f"photos-{version}" / label / f"{seed}.png"
                path.write_bytes(photo(label, first + seed))
        assert main(["cloud", "import", f"photos-{version}", "--hold-out", "25%"]) == 0
        assert main(train) == 0
    out = capsys.readouterr().out
    assert "version 2: models/2.tar" in out
    cards = Registry(tmp_path / "models").cards()
    assert [card.parent for card in cards] == [None, 1]
    assert cards[0].backbone == cards[1].backbone
    assert cards[1].backbone.startswith("mine-")
    assert cards[1].metrics is not None
    assert cards[1].metrics.photos == 8
    assert cards[1].verdict is not None
