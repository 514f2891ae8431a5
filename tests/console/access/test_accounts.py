"""Accounts and the time of a login."""

from argon2 import PasswordHasher, extract_parameters

from console.access import accounts


class Recording(PasswordHasher):
    """A hasher that records how dear each verification is."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.asked = []

    def verify(self, hashed, password):
        self.asked.append(extract_parameters(hashed))
        return super().verify(hashed, password)


def test_a_name_that_does_not_exist_takes_the_time_of_one_that_does(tmp_path, monkeypatch):
    """Each login verifies one hash, as dear as any; so its time does not tell whether the name exists."""
    hasher = Recording()
    monkeypatch.setattr(accounts, "_hasher", hasher)
    accounts._nobody.cache_clear()
    known = accounts.Accounts(tmp_path / "accounts.json")
    monkeypatch.setattr(hasher, "hash", None)  # not at a login
    assert known.verify("ada", "long enough") is None
    monkeypatch.undo()
    monkeypatch.setattr(accounts, "_hasher", hasher)
    known.put("ada", "viewer", "long enough")
    assert known.verify("ada", "long enough") is not None
    assert known.verify("ada", "wrong password") is None
    assert known.verify("nobody", "nobody") is None, "the password of no account opens nothing"
    first, *others = hasher.asked
    assert others == [first] * 3
