from pathlib import Path

import pytest

from bus import config
from bus.config import Broker, ClientConfig, ConfigError
from cloud.retraining.config import TrainerConfig
from device.config import DeviceConfig
from edge.config import EdgeConfig
from schemas.policy_rules import HarvestRules

SECRET = "a secret"


def written(folder: Path, text: str) -> Path:
    path = folder / "x.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (EdgeConfig, "[harvest]\naudit_shar = 0.5", "[harvest]; did you mean 'audit_share'?"),
        (EdgeConfig, "[harvest]\nauto_confidense = 0.9", "[harvest]; did you mean 'auto_confidence'?"),
        (EdgeConfig, "[harvest.caps]\nper_dya = 1", "[harvest.caps]; did you mean 'per_day'?"),
        (EdgeConfig, "[broker.tls]\nca = 'x'\ncert = 'y'", "[broker.tls]"),
        (EdgeConfig, "[outbox]\nwindw = 1", "[outbox]; did you mean 'window'?"),
        (EdgeConfig, "modelsdir = 'x'", "unknown field `modelsdir`; did you mean 'models_dir'?"),
        (HarvestRules, "[caps]\nper_dya = 1", "[caps]; did you mean 'per_day'?"),
        (TrainerConfig, "[release]\nshadow_photo = 1", "[release]; did you mean 'shadow_photos'?"),
        (ClientConfig, "[brokr]\nport = 1", "unknown field `brokr`; did you mean 'broker'?"),
    ],
)
def test_a_misspelt_name_is_refused_at_every_depth(tmp_path, kind, text, said):
    """A typing error never becomes a default, also in tables that are messages on the wire."""
    with pytest.raises(ConfigError) as caught:
        config.load(written(tmp_path, text), kind)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "text", "place"),
    [
        (EdgeConfig, "models_dir = ''", "$.models_dir"),
        (EdgeConfig, "[broker.tls]\nca = ''", "$.broker.tls.ca"),
        (EdgeConfig, "release_key = ''", "$.release_key"),
        (DeviceConfig, "[broker]\nusername = ''", "$.broker.username"),
        (TrainerConfig, "teachers = ['']", "$.teachers[0]"),
        (TrainerConfig, "[release]\ngroups = [['edge-1', '']]", "$.release.groups[0][1]"),
    ],
)
def test_an_empty_text_is_refused(tmp_path, kind, text, place):
    """An empty path or name would be taken for the working folder, or for nothing at all."""
    with pytest.raises(ConfigError) as caught:
        config.load(written(tmp_path, text), kind)
    assert f"empty text - at `{place}`" in str(caught.value)


GOOD = "# Büro\n[broker]\nhost = 'h'\nport = 1884\n"


@pytest.mark.parametrize(
    "content",
    [GOOD.encode(), GOOD.encode("utf-8-sig"), GOOD.replace("\n", "\r\n").encode(), GOOD.rstrip().encode()],
)
def test_a_file_of_any_editor_is_read(tmp_path, content):
    """A byte order mark, line ends of Windows and a last line without end change nothing."""
    (tmp_path / "x.toml").write_bytes(content)
    assert config.load(tmp_path / "x.toml", ClientConfig).broker == Broker(host="h", port=1884)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (GOOD.encode("latin-1"), "line 1 is not UTF-8; save the file as UTF-8"),
        (("\n\n" + GOOD).encode("latin-1"), "line 3 is not UTF-8"),
        (GOOD.encode("utf-16"), "line 1 is not UTF-8"),
        ("port = 1".encode("utf-16-be"), "UTF-16 or UTF-32; save the file as UTF-8"),
        (GOOD.encode() + b"\0", "it is not text"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        ((GOOD + "port = 5").encode(), "Cannot overwrite a value"),
        (GOOD.replace("'h'", "'mqtt://h'").encode(), "got 'mqtt://h'; the port belongs in `port`"),
        (GOOD.replace("'h'", "'h:1883'").encode(), "got 'h:1883'"),
        (GOOD.replace("'h'", "'a..b'").encode(), "got 'a..b'"),
        (GOOD.replace("'h'", "'[::1'").encode(), "got '[::1'"),
        (GOOD.replace("'h'", "'h '").encode(), "got 'h '"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_sentence(tmp_path, content, words):
    """Its encoding, depth and addresses are checked as its fields are."""
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(ConfigError) as refusal:
        config.load(tmp_path / "x.toml", ClientConfig)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        *((host, True) for host in ("h", "h.lan.", "::1", "[::1]", "fe80::1%eth0", "10.0.0.1", "käse.lan")),
        *(
            (host, False)
            for host in ("", ".", "a..b", "a" * 64, "[::1", "::1]", "a b", "a\u202eb", "a/b", "a\udcff")
        ),
    ],
)
def test_a_host_is_what_a_resolver_takes(host, is_one):
    """Python's resolver ends with another error than OSError for some texts."""
    assert config.is_host(host) == is_one


def test_names_of_classes_are_free(tmp_path):
    """A table by class takes any name; only its values are checked."""
    loaded = config.load(written(tmp_path, "[harvest.auto_by_class]\n'a b' = 0.5\ncat = 0.9"), EdgeConfig)
    assert loaded.harvest.auto_by_class == {"a b": 0.5, "cat": 0.9}


@pytest.mark.parametrize("text", ["node = 'Edge 1'", "[broker]\nport = 0", "[harvest]\naudit_share = 2"])
def test_an_error_has_neither_class_names_nor_guards(tmp_path, text):
    """What people read has the field and its rule, without names of the program."""
    with pytest.raises(ConfigError) as caught:
        config.load(written(tmp_path, text), EdgeConfig)
    assert "EdgeConfig" not in str(caught.value)
    assert "(?!" not in str(caught.value)


def test_the_password_comes_from_the_first_place_that_has_one(tmp_path, monkeypatch):
    """The variable, then the file of the configuration, then systemd's credential."""
    monkeypatch.delenv(config.PASSWORD_VARIABLE, raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert config.password() is None
    assert config.password(Broker()) is None
    (tmp_path / config.CREDENTIAL).write_text("of systemd\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert config.password(Broker()) == "of systemd"
    own = tmp_path / "password"
    own.write_text(SECRET)
    assert config.password(Broker(password_file=str(own))) == SECRET
    own.write_bytes(f"\ufeff{SECRET}\r\n".encode())
    assert config.password(Broker(password_file=str(own))) == SECRET
    monkeypatch.setenv(config.PASSWORD_VARIABLE, "of the environment")
    assert config.password(Broker(password_file=str(own))) == "of the environment"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff"])
def test_an_unusable_password_file_is_an_error(tmp_path, monkeypatch, content):
    """Without it the broker would refuse the client for a reason that nobody sees."""
    monkeypatch.delenv(config.PASSWORD_VARIABLE, raising=False)
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="password"):
        config.password(Broker(password_file=str(path)))
