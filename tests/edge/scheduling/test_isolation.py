"""Which devices have their photos classified alone, and when they return to the batches."""

from edge.scheduling.isolation import FIRST_ANSWERS, ISOLATED_S, Isolation


def answers_until_it_returns(isolation: Isolation, device: str, now: float = 0.0) -> int:
    """Return how many photos of the device are answered alone before it returns to the batches."""
    count = 0
    while device in isolation:
        isolation.answered(device, now)
        count += 1
    return count


def test_a_device_in_a_failed_batch_returns_after_one_answer_alone():
    """It was probably there by chance, so that its backlog is classified in batches."""
    isolation = Isolation()
    isolation.isolate("calm")
    assert answers_until_it_returns(isolation, "calm") == 1


def test_a_device_whose_photo_failed_alone_returns_after_some_answers():
    """A killed server makes honest devices suspects; a backlog one at a time would last for hours."""
    isolation = Isolation()
    isolation.failed("pi", 0.0)
    assert answers_until_it_returns(isolation, "pi") == FIRST_ANSWERS


def test_each_further_failure_doubles_the_answers_that_are_needed():
    """A hostile device cannot buy its way into a batch at the same price again and again."""
    isolation = Isolation()
    needed = []
    for _ in range(12):
        isolation.failed("hostile", 0.0)
        needed.append(answers_until_it_returns(isolation, "hostile"))
    assert needed[:4] == [FIRST_ANSWERS, 2 * FIRST_ANSWERS, 4 * FIRST_ANSWERS, 8 * FIRST_ANSWERS]
    assert needed[-1] == needed[-2] == 128 * FIRST_ANSWERS


def test_failures_are_forgotten_after_a_while():
    """One answer then ends the isolation, and the next failure counts as the first."""
    isolation = Isolation()
    for _ in range(5):
        isolation.failed("pi", 0.0)
    assert answers_until_it_returns(isolation, "pi", ISOLATED_S) == 1
    isolation.failed("pi", ISOLATED_S)
    assert answers_until_it_returns(isolation, "pi", ISOLATED_S) == FIRST_ANSWERS


def test_a_device_that_failed_by_chance_long_ago_is_tried_beside_a_slow_photo():
    """While a slow photo is decoded, a device that failed lately is not tried; later it is."""
    isolation = Isolation()
    isolation.failed("pi", 0.0)
    isolation.answered("pi", 0.0)
    isolation.isolate("pi")
    assert isolation.next_device(["pi"], 1.0, crowded=True) is None
    assert isolation.next_device(["pi"], ISOLATED_S, crowded=True) == "pi"
