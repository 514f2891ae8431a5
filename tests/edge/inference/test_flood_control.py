from edge.inference.flood_control import ABOUT_S, FLOODING_S, LONGEST_REST_S, RESTS, Throttle


def test_a_device_floods_for_a_while_after_a_photo_gave_way():
    """It rests in proportion to its call, as long as another is about and it goes on; others never rest."""
    floods = Throttle()
    floods.came("flood", 0.0)
    floods.gave_way("flood", 1.0)
    assert floods.rest_s("flood", 2.0, 2.0) == 0, "nobody else is about"
    floods.came("calm", 2.0)
    floods.came("flood", 2.0)
    assert floods.rest_s("flood", 0.02, 2.0) == RESTS * 0.02
    assert floods.rest_s("flood", 600.0, 2.0) == LONGEST_REST_S, "the model server was away"
    assert floods.rest_s("calm", 2.0, 2.0) == 0
    assert floods.rest_s("flood", 2.0, 1.0 + FLOODING_S) == 0, "it stopped"
    floods.gave_way("flood", 100.0)
    assert floods.rest_s("flood", 2.0, 2.0 + ABOUT_S) == 0, "the other is gone"


def test_two_that_flood_do_not_wait_for_each_other():
    """The time that resting leaves is for those who keep to their share; without any it would be wasted."""
    floods = Throttle()
    for device in ("a", "b"):
        floods.came(device, 0.0)
        floods.gave_way(device, 1.0)
    assert floods.rest_s("a", 2.0, 1.0) == floods.rest_s("b", 2.0, 1.0) == 0


def test_what_it_remembers_is_bounded():
    """Ten thousand names leave no more than the latest thousand behind."""
    floods = Throttle()
    for number in range(10_000):
        floods.came(f"calm-{number}", number)
        floods.gave_way(f"flood-{number}", number)
    assert (len(floods._came), len(floods._gave_way)) == (1024, 1024)
    assert floods.is_flooding("flood-9999", 9999.0)
