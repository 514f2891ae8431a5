from device.cameras.lag import LagMeter


def test_the_lag_counts_from_the_frame_that_was_least_late():
    """A burst at the start does not count as lag; frames that arrive later and later do."""
    meter = LagMeter()
    arrivals = [(0.0, 100.9), (1.0, 101.0), (2.0, 102.0), (3.0, 103.5), (4.0, 107.0), (5.0, 105.0)]
    assert [meter.lag_s(*arrival) for arrival in arrivals] == [0, 0, 0, 0.5, 3.0, 0]


def test_a_clock_that_jumps_back_looks_like_a_lag():
    """The stream is opened again then, which measures again."""
    meter = LagMeter()
    meter.lag_s(1000.0, 10.0)
    assert meter.lag_s(0.0, 10.0) == 1000.0
