from structlog.testing import capture_logs

from cloud import progress
from cloud.progress import LoggedProgress


def test_the_log_says_how_far_a_step_is(monkeypatch):
    """At its start, and then at most once in a while: not a line for each photo."""
    logged_progress = LoggedProgress()
    with capture_logs() as logged:
        logged_progress.start("embed photos", 100)
        logged_progress.advance(10)
        monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
        logged_progress.advance(10)
    assert [(one["event"], one.get("done"), one["total"]) for one in logged] == [
        ("step.started", None, 100), ("step.progress", 20, 100),
    ]  # fmt: skip
