"""Rules of console/access/login_backoff.py."""

from console.access.login_backoff import FIRST_WAIT_S, FREE_ATTEMPTS, LONGEST_WAIT_S, LoginBackoff


def test_each_further_failure_doubles_the_wait():
    """The first failures are free, then the wait grows up to a bound; success forgets them."""
    now = 0.0
    backoff = LoginBackoff(lambda: now)
    waits = []
    for _ in range(FREE_ATTEMPTS + 20):
        backoff.failed("name ada")
        waits.append(backoff.wait_s("name ada", "client 10.0.0.1"))
    assert waits[: FREE_ATTEMPTS - 1] == [0.0] * (FREE_ATTEMPTS - 1)
    assert waits[FREE_ATTEMPTS - 1 : FREE_ATTEMPTS + 1] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S]
    assert waits[-1] == LONGEST_WAIT_S
    now = LONGEST_WAIT_S
    assert backoff.wait_s("name ada") == 0.0
    backoff.succeeded("name ada")
    backoff.failed("name ada")
    assert backoff.wait_s("name ada") == 0.0
