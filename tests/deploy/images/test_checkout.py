import subprocess
from pathlib import Path

import pytest

from deploy.images.checkout import authorities, inputs_of, public_url, read_source
from tests.conftest import ROOT


def git(folder: Path, *words: str) -> None:
    names = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", "-C", str(folder), *names, *words], check=True, capture_output=True)


def commit(folder: Path, name: str, epoch_s: int) -> None:
    (folder / name).write_text(f"{epoch_s}\n")
    git(folder, "add", ".")
    environment = {"GIT_COMMITTER_DATE": f"{epoch_s} +0000", "PATH": "/usr/bin:/bin:/usr/local/bin"}
    names = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(
        ["git", "-C", str(folder), *names, "commit", "--message", name],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A repository with pins and code, of which images are made."""
    (tmp_path / ".dockerignore").write_text("*\n!constraints\n!code\n")
    (tmp_path / "constraints").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    git(tmp_path, "init", "--quiet")
    commit(tmp_path, "constraints/edge.txt", 1_600_000_000)
    commit(tmp_path, "code", 1_700_000_000)
    return tmp_path


def test_a_commit_to_other_files_leaves_an_image_alone(checkout):
    """A commit that changes nothing of which an image is made changes neither its time nor its revision."""
    before = read_source(checkout)
    commit(checkout, "page", 1_800_000_000)
    assert read_source(checkout) == before
    assert before.version == "1.2.3"
    assert len(before.revision) == 40


def test_the_time_of_the_files_is_that_of_the_pins(checkout):
    """New code gives a new revision, and the same time: the layers below it stay as they are."""
    before = read_source(checkout)
    commit(checkout, "code", 1_800_000_000)
    after = read_source(checkout)
    assert (before.epoch_s, after.epoch_s) == (1_600_000_000, 1_600_000_000)
    assert before.revision != after.revision
    commit(checkout, "constraints/edge.txt", 1_900_000_000)
    assert read_source(checkout).epoch_s == 1_900_000_000


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("https://example.org/team/gleaner.git", "https://example.org/team/gleaner"),
        ("https://user:token@example.org:8443/gleaner", "https://example.org:8443/gleaner"),
        ("ssh://git@example.org:2222/team/gleaner.git", "https://example.org/team/gleaner"),
        ("git@example.org:team/gleaner.git", "https://example.org/team/gleaner"),
        ("/home/me/gleaner", ""),
        ("../gleaner", ""),
        ("file:///home/me/gleaner", ""),
        ("", ""),
    ],
)
def test_the_label_of_the_source_is_a_web_address(remote, url):
    """Nothing private of the remote gets into an image: no token, and no folder of the machine."""
    assert public_url(remote) == url


def test_the_source_is_that_of_the_remote(checkout):
    """A checkout without a remote has none."""
    assert read_source(checkout).url == ""
    git(checkout, "remote", "add", "origin", "https://token@example.org/gleaner.git")
    assert read_source(checkout).url == "https://example.org/gleaner"


def test_an_uncommitted_change_marks_the_revision(checkout):
    """An image of uncommitted files is marked as such; other uncommitted files do not matter."""
    (checkout / "page").write_text("changed")
    assert not read_source(checkout).revision.endswith("-dirty")
    (checkout / "code").write_text("changed")
    assert read_source(checkout).revision.endswith("-dirty")


def test_a_folder_without_git_has_a_fixed_time(checkout, tmp_path):
    """An unpacked archive of the sources can be built too, and gives the same image each time."""
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in (".dockerignore", "pyproject.toml"):
        (plain / name).write_bytes((checkout / name).read_bytes())
    (checkout / ".git").rename(tmp_path / "elsewhere")
    assert read_source(plain)[1:] == ("unknown", 315_532_800, "")


def test_the_inputs_of_a_build_are_in_the_checkout():
    """Every exception of `.dockerignore` names a file or folder that exists."""
    text = (ROOT / ".dockerignore").read_text()
    assert text.startswith("*\n")
    assert [name for name in inputs_of(text) if not (ROOT / name).exists()] == []


def test_authorities_come_from_the_environment(monkeypatch, tmp_path):
    """A network with its own authority is named by the variables that Python's clients read."""
    for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    assert authorities() is None
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "absent.pem"))
    assert authorities() is None
    (tmp_path / "ca.pem").touch()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    assert authorities() == tmp_path / "ca.pem"
