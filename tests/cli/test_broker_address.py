"""The address of a broker in all forms that people write; others are refused with the form."""

from argparse import ArgumentTypeError

import pytest

from cli.broker_address import BrokerAddress, parse

TAKEN = {
    "broker.lan": ("broker.lan", None, False),
    "broker.lan:1884": ("broker.lan", 1884, False),
    "10.0.0.1:1884": ("10.0.0.1", 1884, False),
    "::1": ("::1", None, False),
    "[::1]": ("::1", None, False),
    "[::1]:1883": ("::1", 1883, False),
    "2001:db8::5": ("2001:db8::5", None, False),
    "fe80::1%eth0": ("fe80::1%eth0", None, False),
    "[fe80::1%eth0]:1884": ("fe80::1%eth0", 1884, False),
    "mqtt://[fe80::1%25eth0]:1884": ("fe80::1%eth0", 1884, False),
    "mqtt://broker.lan": ("broker.lan", None, False),
    "mqtt://broker.lan:1884/": ("broker.lan", 1884, False),
    "MQTT://broker.lan": ("broker.lan", None, False),
    "mqtt://[::1]:1884": ("::1", 1884, False),
    "mqtts://broker.lan": ("broker.lan", 8883, True),
    "mqtts://broker.lan:9000": ("broker.lan", 9000, True),
}


@pytest.mark.parametrize("text", TAKEN)
def test_every_usual_form_is_taken(text):
    """Host names, IPv4, IPv6 with and without brackets, and URLs."""
    assert parse(text) == BrokerAddress(*TAKEN[text])


REFUSED = [
    "",
    ":1883",
    "host:",
    "host:x",
    "host:0",
    "host:65536",
    "host:1883:2",
    "[::1",
    "[::1]1883",
    "[host]:1883",
    "[]",
    "http://host",
    "ws://host:80",
    "mqtt://",
    "mqtt://host/path",
    "mqtt://host?x=1",
    "host/path",
    "a b",
    "host:١٨٨٣",
    "host:" + "9" * 5000,
]


@pytest.mark.parametrize("text", REFUSED)
def test_other_forms_are_refused_with_the_form(text):
    """The error shows the expected form."""
    with pytest.raises(ArgumentTypeError, match="expected"):
        parse(text)


@pytest.mark.parametrize("text", ["mqtt://anna:secret@host", "anna:secret@host:1883", "mqtts://anna@host"])
def test_a_password_in_an_address_is_refused_and_not_repeated(text):
    """The error names the options for user and password."""
    with pytest.raises(ArgumentTypeError, match="--username, and GLEANER_MQTT_PASSWORD") as refusal:
        parse(text)
    assert "secret" not in str(refusal.value)


def test_mqtts_needs_a_ca(called):
    """Without --ca the connection would not be encrypted: it is refused."""
    done = called("tail", "--broker", "mqtts://host")
    assert done.code == 1
    assert "mqtts:// needs --ca" in done.err
