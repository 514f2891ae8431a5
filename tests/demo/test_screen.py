import io

import pytest
from rich.console import Console

from demo.screen import Screen


def screen(*, terminal: bool = False) -> tuple[Screen, io.StringIO]:
    """Return a screen and what it shows."""
    shown = io.StringIO()
    return Screen(2, Console(file=shown, force_terminal=terminal, width=80, highlight=False)), shown


def test_steps_are_counted():
    """Each step says which of how many it is; what it found stands below."""
    seen, shown = screen()
    seen.begin("drawing")
    seen.say("ten are drawn")
    seen.begin("training")
    assert [line.split("s  ", 1)[1] for line in shown.getvalue().splitlines()] == [
        "1/2  drawing", "     ten are drawn", "2/2  training",
    ]  # fmt: skip


@pytest.mark.parametrize("terminal", [True, False])
def test_a_name_with_brackets_is_text(*, terminal: bool):
    """What looks like the terminal's markup, such as a folder named [/red], is shown as it is."""
    seen, shown = screen(terminal=terminal)
    seen.begin("photos of [/red][bold]")
    with seen.busy("[/red]") as tell:
        tell("[/blue]")
    assert "photos of [/red][bold]" in shown.getvalue()


def test_without_a_terminal_a_long_step_says_where_it_is(monkeypatch: pytest.MonkeyPatch):
    """A log gets a line now and then, and not one for each photo."""
    seen, shown = screen()
    now = 0.0
    monkeypatch.setattr("demo.screen.time.monotonic", lambda: now)
    with seen.busy("photos") as tell:
        for now in range(25):
            tell(f"{now} answered")
    assert [line.split("…")[1] for line in shown.getvalue().splitlines()] == [" 10 answered", " 20 answered"]
