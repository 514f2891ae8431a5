import pytest

from cli import configurations
from cli.configurations import KINDS, recognise, usual_places


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("edge.toml", "", "edge"),
        ("my.toml", "serving = '127.0.0.1:1'\nnode = 'edge-2'", "edge"),
        ("my.toml", "camera = 'picamera'", "device"),
        ("my.toml", "dead_letter_rows = 100", "collector"),
        ("my.toml", "[triggers]", "trainer"),
        ("my.toml", "router = 'http://127.0.0.1:1'", "gateway"),
        ("my.toml", "audit_share = 0.1", "rules"),
        ("my.toml", "[broker]\nport = 1", "client"),
        ("pi-1.toml", "camera = 'usb:0'\nmotoin = 0.1", "device"),
    ],
)
def test_a_file_is_recognised_by_its_name_or_fields(called, tmp_path, name, text, kind):
    """The usual name decides; otherwise the kind that has the fields, also if one of them is misspelt."""
    path = tmp_path / name
    path.write_text(text)
    done = called("check", path)
    if "motoin" in text:
        assert done.code == 1
        assert "unknown field `motoin`; did you mean 'motion'?" in done.sentence
    else:
        assert (done.code, done.err) == (0, "")
        assert f"a valid configuration of {KINDS[kind][2]}" in done.out
        assert recognise(path).kind == kind


def test_files_that_a_configuration_names_must_exist(called, tmp_path):
    """A missing certificate, key or password file is found before the service starts."""
    path = tmp_path / "edge.toml"
    path.write_text(
        "release_key = '/no/key'\n[broker]\npassword_file = '/no/word'\n[broker.tls]\nca = '/no/ca'\n"
    )
    done = called("check", path)
    assert done.code == 1
    for field in ("release_key", "broker.password_file", "broker.tls.ca"):
        assert f"{field}: there is no file /no/" in done.err


def test_every_file_is_checked(called, tmp_path):
    """One wrong file does not hide the others; the exit code is 1."""
    (tmp_path / "edge.toml").write_text("node = 'Edge'")
    (tmp_path / "device.toml").write_text("")
    done = called("check", tmp_path / "edge.toml", tmp_path / "device.toml", tmp_path / "nothing.toml")
    assert done.code == 1
    assert len(done.err.splitlines()) == 2
    assert "device.toml: a valid configuration" in done.out


def test_the_kind_can_be_given(called, tmp_path):
    """`--as` states the kind of a file with any name."""
    path = tmp_path / "edge.toml"
    path.write_text("camera = 'usb:0'")
    assert called("check", path, "--as", "device").code == 0
    assert called("check", path).code == 1


def test_the_configuration_of_this_machine_is_found(tmp_path, monkeypatch):
    """A client command takes the user's configuration; the variable names another one."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv(configurations.VARIABLE, raising=False)
    assert configurations.for_client(None).broker.port == 1883
    (tmp_path / "gleaner").mkdir()
    (tmp_path / "gleaner/device.toml").write_text("node = 'edge-7'\n[broker]\nport = 18830\n")
    found = configurations.for_client(None)
    assert (found.kind, found.broker.port, found.value.node) == ("device", 18830, "edge-7")
    other = tmp_path / "other.toml"
    other.write_text("[broker]\nport = 18831\n")
    monkeypatch.setenv(configurations.VARIABLE, str(other))
    assert usual_places() == [other]
    assert configurations.for_client(None).broker.port == 18831
