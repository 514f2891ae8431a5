import pytest

from bus.gateway.restart_detector import RestartDetector
from schemas.messages import Status


def status(state: str = "online", run_id: str = "a", node: str = "edge-1") -> Status:
    return Status(
        node=node,
        name="edge",
        state=state,
        at_ms=0,
        since_ms=0,
        software="1",
        run_id=run_id,  # type: ignore[arg-type]  # one of the three
    )


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([(status(), 0), (status(), 15), (status(), 30)], [True, False, False]),
        ([(status(), 0), (status(run_id="b"), 1)], [True, True]),
        ([(status(), 0), (status(), 41)], [True, True]),
        ([(status(), 0), (status("offline"), 1), (status(), 2)], [True, False, True]),
        ([(status("degraded"), 0), (status("degraded"), 15)], [True, False]),
        ([(status(), 0), (status(node="edge-2"), 1), (status(), 2)], [True, True, False]),
    ],
    ids=["first", "restarted", "silent", "offline", "degraded", "two nodes"],
)
def test_an_edge_has_returned_after_a_start_or_a_silence(reports, expected):
    """`has_returned` is True for a new run and after `offline` or a silence, and False for other reports."""
    detector = RestartDetector(silent_s=40)
    assert [detector.has_returned(report, now) for report, now in reports] == expected
