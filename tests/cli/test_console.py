"""Rules of `gleaner console user`: accounts without a running console, and passwords that nobody can read."""

import io
import json
import stat

import pytest


@pytest.fixture
def user(called, monkeypatch, tmp_path):
    """Return a function that runs `gleaner console user` with a password on standard input."""

    def run(*words: str, password: str = ""):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
        return called("console", "user", *words, "--accounts", tmp_path / "accounts.json")

    return run


def test_accounts_are_added_listed_changed_and_removed(user, tmp_path):
    """The file is its owner's alone and has Argon2 hashes; a further `add` changes role and password."""
    path = tmp_path / "accounts.json"
    assert user("add", "ada", password="correct horse").out == "ada: reviewer\n"
    first = json.loads(path.read_text())["ada"]
    assert first["password"].startswith("$argon2id$")
    assert "correct horse" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert user("add", "ada", "--role", "operator", password="battery staple").out == "ada: operator\n"
    user("add", "bob", "--role", "viewer", password="battery staple")
    assert user("list").out == "ada  operator\nbob  viewer\n"
    assert json.loads(path.read_text())["ada"]["password"] != first["password"]
    assert "sessions of this person end" in user("remove", "ada").out
    assert user("list").out == "bob  viewer\n"


@pytest.mark.parametrize(
    ("words", "password", "problem"),
    [
        (("add", "ada"), "short", "at least 8 characters"),
        (("add", "a\u202eda"), "long enough", "visible characters"),
        (("add",), "long enough", "needs the name of a person"),
        (("remove", "nobody"), "", "there is no account 'nobody'"),
    ],
)
def test_what_is_no_account_is_refused(user, tmp_path, words, password, problem):
    """In one sentence, and nothing is written."""
    done = user(*words, password=password)
    assert done.code == 1
    assert problem in done.sentence
    assert not (tmp_path / "accounts.json").exists()
