"""Rules of console/web/languages.py: the browser's preference decides until somebody chooses."""

import pytest

from console.web.languages import preferred


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-TW", "zh_Hant"),
        ("zh-Hant-TW,en;q=0.5", "zh_Hant"),
        ("de,zh-HK;q=0.5", "zh_Hant"),
        ("zh-TW;q=0.3,en-GB;q=0.9", "en"),
        ("en-US,zh-TW;q=0.8", "en"),
        ("de", "en"),
        ("", "en"),
        ("zh-TW;q=much", "en"),
    ],
)
def test_the_best_language_of_a_browser_is_taken(header, language):
    """By its quality, in any region; English where nothing fits."""
    assert preferred(header) == language
