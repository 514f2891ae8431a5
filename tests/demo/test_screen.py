import io

import pytest
from rich.console import Console

from demo.screen import Screen


def screen(*, terminal: bool = False) -> tuple[Screen, io.StringIO]:
    """Return a screen and its output."""
    shown = io.StringIO()
    return Screen(2, Console(file=shown, force_terminal=terminal, width=80, highlight=False)), shown


def test_steps_are_counted():
    """Each heading has the number of the step; other lines are indented below it."""
    tested, shown = screen()
    tested.start_step("drawing")
    tested.print("ten are drawn")
    tested.start_step("training")
    assert [line.split("s  ", 1)[1] for line in shown.getvalue().splitlines()] == [
        "1/2  drawing", "     ten are drawn", "2/2  training",
    ]  # fmt: skip


def test_an_address_stands_out():
    """It has its own line between empty ones, whole and not broken at 80 columns."""
    tested, shown = screen()
    address = "http://127.0.0.1:8765/?token=" + "x" * 80
    tested.highlight(f"console: {address}")
    assert [line.strip() for line in shown.getvalue().split("\n")] == ["", f"console: {address}", "", ""]


@pytest.mark.parametrize("terminal", [True, False])
def test_markup_is_escaped(*, terminal: bool):
    """Text that looks like markup of rich, such as a folder named [/red], is shown unchanged."""
    tested, shown = screen(terminal=terminal)
    tested.start_step("photos of [/red][bold]")
    with tested.progress("[/red]") as update:
        update("[/blue]")
    assert "photos of [/red][bold]" in shown.getvalue()


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch):
    """Without a terminal a progress line is printed every ten seconds, and not at each update."""
    tested, shown = screen()
    now = 0.0
    monkeypatch.setattr("demo.screen.time.monotonic", lambda: now)
    with tested.progress("photos") as update:
        for now in range(25):
            update(f"{now} answered")
    assert [line.split("…")[1] for line in shown.getvalue().splitlines()] == [" 10 answered", " 20 answered"]
