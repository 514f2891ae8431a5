"""Devices whose photos are shed pause between their calls."""

from edge.scheduling.flood_control import ACTIVE_S, FLOODING_S, MAX_PAUSE_S, PAUSE_PER_CALL, Throttle


def test_a_flooding_device_pauses_in_proportion_to_its_call():
    """Only while another device is active and until `FLOODING_S` after its last photo was shed."""
    throttle = Throttle()
    throttle.photo_admitted("flood", 0.0)
    throttle.photo_shed("flood", 1.0)
    assert throttle.pause_s("flood", 2.0, 2.0) == 0, "no other device is active"
    throttle.photo_admitted("calm", 2.0)
    throttle.photo_admitted("flood", 2.0)
    assert throttle.pause_s("flood", 0.02, 2.0) == PAUSE_PER_CALL * 0.02
    assert throttle.pause_s("flood", 600.0, 2.0) == MAX_PAUSE_S, "the model server was away"
    assert throttle.pause_s("calm", 2.0, 2.0) == 0
    assert throttle.pause_s("flood", 2.0, 1.0 + FLOODING_S) == 0, "it stopped flooding"
    throttle.photo_shed("flood", 100.0)
    assert throttle.pause_s("flood", 2.0, 2.0 + ACTIVE_S) == 0, "the other device is no longer active"


def test_two_flooding_devices_do_not_pause_for_each_other():
    """Pauses leave time for devices within their share; without any such device it would be wasted."""
    throttle = Throttle()
    for device in ("a", "b"):
        throttle.photo_admitted(device, 0.0)
        throttle.photo_shed(device, 1.0)
    assert throttle.pause_s("a", 2.0, 1.0) == throttle.pause_s("b", 2.0, 1.0) == 0


def test_memory_is_bounded():
    """Of 10 000 device names the newest 1024 are kept."""
    throttle = Throttle()
    for number in range(10_000):
        throttle.photo_admitted(f"calm-{number}", number)
        throttle.photo_shed(f"flood-{number}", number)
    assert (len(throttle._admitted_at), len(throttle._shed_at)) == (1024, 1024)
    assert throttle.is_flooding("flood-9999", 9999.0)
