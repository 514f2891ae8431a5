from argparse import ArgumentTypeError

import pytest

from bus import config
from cli import options

TLS = ["--ca", "--cert", "--key"]


@pytest.mark.parametrize("name", ["Pi-1", "pi_1", "-pi", "pi/1", "", "a" * 64, "pi\n"])
def test_a_name_is_a_dns_label(called, name):
    """A name that is invalid in a topic is a usage error."""
    done = called("device", f"--name={name}")
    assert done.code == 2
    assert "argument --name: name: expected a DNS label" in done.err


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (":1883", "expected HOST or HOST:PORT"),
        ("", "expected HOST or HOST:PORT"),
        ("host:", "expected a port from 1 to 65535, got ''"),
        ("host:0", "expected a port from 1 to 65535, got '0'"),
        ("host:65536", "got '65536'"),
        ("host:mqtt", "got 'mqtt'"),
    ],
)
def test_a_broker_is_host_and_port(called, address, words):
    """The error has the invalid value."""
    done = called("tail", f"--broker={address}")
    assert done.code == 2
    assert words in done.err


@pytest.mark.parametrize("number", ["0", "-1", "x", "nan"])
def test_numbers_are_greater_than_zero(called, number):
    """A timeout, a count or a port that is not positive is a usage error."""
    for words in (("send", "x", "--timeout"), ("tail", "--count"), ("broker", "--port")):
        assert called(*words, number).code == 2


@pytest.mark.parametrize("by", ["", "x" * 129])
@pytest.mark.parametrize("words", [("import", "photos"), ("review", "--interactive")])
def test_the_name_of_the_labeller_is_checked_first(called, words, by):
    """A name that is empty or too long is a usage error, before anybody labels a photo."""
    done = called("cloud", *words, "--by", by)
    assert done.code == 2
    assert f"argument --by: expected 1 to 128 characters, got {len(by)}" in done.err


def test_certificate_files_must_exist(called, tmp_path):
    """A wrong path is a usage error and not retried like a broker that is unreachable."""
    for option in TLS:
        done = called("tail", option, tmp_path / "none.pem")
        assert done.code == 2
        assert f"argument {option}: there is no file" in done.err


@pytest.mark.parametrize(("given", "missing"), [(("--cert",), "--ca"), (("--ca", "--key"), "--cert")])
def test_incomplete_tls_options_are_an_error(called, tmp_path, given, missing):
    """With half of them the client would connect without TLS."""
    pem = tmp_path / "x.pem"
    pem.write_bytes(b"")
    done = called("send", pem, *(word for option in given for word in (option, pem)))
    assert done.code == 1
    assert f"option {given[-1]} needs {missing}" in done.sentence


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("intervall_s = 3", "unknown field `intervall_s`"),
        ("interval_s = -1", "$.interval_s"),
        ("name = 'Pi 1'", "$.name"),
        ("[broker]\nport = 99999", "$.broker.port"),
        ("interval_s = ", "Invalid value"),
        (None, "cannot read configuration"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(called, tmp_path, toml, words):
    """The error has the file, and the field with an unknown name or an invalid value."""
    path = tmp_path / "device.toml"
    if toml is not None:
        path.write_text(toml)
    done = called("device", "--config", path)
    assert done.code == 1
    assert str(path) in done.sentence
    assert words in done.sentence


def test_an_option_out_of_range_is_one_sentence(called):
    """Options are checked like the fields of the file."""
    done = called("device", "--motion", "2")
    assert done.code == 1
    assert "$.motion" in done.sentence


def test_options_override_the_file(monkeypatch, called, tmp_path):
    """Given options replace fields of the file, and the other fields stay."""
    from device import service  # noqa: PLC0415  # as the command does

    calls = []

    async def run(loaded, on_result, password):
        calls.append((loaded, password))
        return {}

    monkeypatch.setattr(service, "run", run)
    monkeypatch.setenv(config.PASSWORD_VARIABLE, "secret")
    path = tmp_path / "device.toml"
    path.write_text("name = 'pi-7'\ninterval_s = 3.0\n[broker]\nhost = 'far'\nport = 8883\n")
    done = called("device", "--config", path, "--interval", "9", "--broker", "near", "--username", "pi")
    loaded, password = calls[0]
    assert (done.code, password) == (0, "secret")
    assert (loaded.name, loaded.interval_s) == ("pi-7", 9.0)
    assert (loaded.broker.host, loaded.broker.port, loaded.broker.username) == ("near", 8883, "pi")


@pytest.mark.parametrize("kind", [options.positive(int), options.at_least_0(int)])
def test_a_whole_number_has_the_limit_of_the_contract(kind):
    """Lance and SQLite have integers of 64 bits: a larger number ended a command with a traceback."""
    assert kind("9007199254740992") == 2**53
    with pytest.raises(ArgumentTypeError, match="expected at most 9007199254740992"):
        kind("99999999999999999999")
