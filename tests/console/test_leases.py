"""Rules of console/review/leases.py."""

from console.review.leases import MAX_PER_HOLDER, Leases


def test_a_photo_is_reserved_for_one_holder_until_its_lease_ends():
    """Nobody else gets it meanwhile; who holds it renews it by taking it again."""
    now = 0.0
    leases = Leases(10.0, lambda: now)
    assert leases.take(["a", "b"], "ada") == ["a", "b"]
    assert leases.take(["b", "c"], "bob") == ["c"]
    now = 9.0
    leases.take(["a"], "ada")
    now = 11.0
    assert leases.take(["a", "b"], "bob") == ["b"]
    leases.release(["a"], "bob")
    assert not leases.is_free("a", "bob")
    leases.release(["a"], "ada")
    assert leases.is_free("a", "bob")


def test_a_holder_has_a_bound():
    """A further photo releases the oldest one."""
    leases = Leases(10.0)
    photos = [str(number) for number in range(MAX_PER_HOLDER + 5)]
    leases.take(photos, "ada")
    assert leases.held("ada") == photos[5:]
