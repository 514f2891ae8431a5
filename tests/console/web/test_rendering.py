"""Rules of console/web/rendering.py: no figure that a message may have stops a page."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from console.web.languages import LANGUAGES
from console.web.rendering import _environment

FIGURES = st.integers() | st.floats(allow_nan=False)
MAX_CHARS = 40


@pytest.mark.parametrize("language", LANGUAGES)
@given(figure=FIGURES)
@example(figure=1e308)
@example(figure=-1e308)
@example(figure=10**400)
@example(figure=2**64)
def test_any_figure_is_shown(language, figure):
    """However large: as a number, a share or a moment, in few characters."""
    filters = _environment(language).filters
    assert 0 < len(filters["number"](figure)) <= MAX_CHARS
    assert 0 < len(filters["percent"](figure)) <= MAX_CHARS
    if isinstance(figure, int):
        for name in ("iso", "moment"):
            assert filters[name](figure)
    if isinstance(figure, int) and figure >= 0:
        assert filters["ago"](figure)


@pytest.mark.parametrize(
    ("value", "shown"), [(1234.5, "1,234.5"), (1e20, "1e+20"), (2**53, "9,007,199,254,740,992")]
)
def test_usual_figures_are_written_as_people_do(value, shown):
    """And absurd ones in short."""
    assert _environment("en").filters["number"](value) == shown
