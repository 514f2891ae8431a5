"""Rules of bench/scale: an hour for all parts, each a command of `bench` that takes its options."""

import argparse
import importlib

import pytest

from bench.scale import PARTS, S3, chosen


def test_all_parts_together_take_less_than_an_hour():
    """The limits, which end a part, add up to less than 3600 s, with that of the object store."""
    assert sum(part.limit_s for part in chosen((), "versitygw", ()).values()) < 3600


@pytest.mark.parametrize(
    "words",
    [
        words
        for name, part in {**PARTS, "s3": S3}.items()
        if name != "ray"
        for words in (part.words, part.quick)
    ],
)
def test_each_part_is_a_command_with_these_options(words, monkeypatch):
    """An option that a benchmark no longer has would end `make bench-scale` after half an hour."""

    class ParsedError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_known_args

    def stop(*given, **options):
        parse(*given, **options)
        raise ParsedError

    monkeypatch.setattr("sys.argv", list(words))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    with pytest.raises(ParsedError):
        importlib.import_module({"bench.failover": "bench.failover.__main__"}.get(words[0], words[0])).main()


def test_nodes_of_a_broker_are_killed_where_they_are_given():
    """Without them, the part runs on one mosquitto, which nobody kills."""
    assert "--broker-node" not in chosen((), None, ())["failover"].words
    assert chosen(("failover",), None, ("1 a", "2 b"))["failover"].words[-4:] == (
        "--broker-node", "1 a", "--broker-node", "2 b"
    )  # fmt: skip
