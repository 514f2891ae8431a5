import pytest

from bus.gateway.restart_detector import RestartDetector
from schemas.messages import Status


def said(state: str = "online", run_id: str = "a", node: str = "edge-1") -> Status:
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
        ([(said(), 0), (said(), 15), (said(), 30)], [True, False, False]),
        ([(said(), 0), (said(run_id="b"), 1)], [True, True]),
        ([(said(), 0), (said(), 41)], [True, True]),
        ([(said(), 0), (said("offline"), 1), (said(), 2)], [True, False, True]),
        ([(said("degraded"), 0), (said("degraded"), 15)], [True, False]),
        ([(said(), 0), (said(node="edge-2"), 1), (said(), 2)], [True, True, False]),
    ],
    ids=["once", "started again", "silent for long", "said goodbye", "without a model", "each for itself"],
)
def test_an_edge_returns_when_it_starts_and_when_it_was_silent(reports, expected):
    """An edge is told what lasts when it may not know it, and not with each of its reports."""
    births = RestartDetector(silent_s=40)
    assert [births.returned(status, now) for status, now in reports] == expected
