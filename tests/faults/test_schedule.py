from itertools import islice

from tests.faults.hostile import HOSTILE
from tests.faults.preload import DISK_FAULTS
from tests.faults.schedule import HARSH_STREAMS, STREAMS, faults


def test_a_seed_determines_the_faults():
    """The same seed draws the same faults, another seed others; no two streams are the same."""
    drawn = {(seed, stream): tuple(islice(faults(seed, stream), 20)) for seed in (1, 2) for stream in STREAMS}
    assert drawn == {key: tuple(islice(faults(*key), 20)) for key in drawn}
    assert len(set(drawn.values())) == len(drawn)


def test_every_target_gets_every_kind_of_fault():
    """Each target of each stream gets each of its kinds of faults."""
    kinds: dict[str, set[str]] = {}
    for stream in STREAMS:
        for fault in islice(faults(1, stream), 500):
            kinds.setdefault(fault.target, set()).add(fault.kind)
    assert kinds.keys() == {target for targets in STREAMS.values() for target in targets}
    for target, seen in kinds.items():
        if target.startswith("link "):
            assert seen == {"cut", "halve", "delay", "silence", "close"}
        else:
            assert seen - {"crash"} == {"kill", "freeze", "restart"}
            assert ("crash" in seen) != target.endswith("-broker")


def test_every_harsh_stream_has_every_kind_of_fault():
    """Each target of a harsh stream gets each kind of its faults, and each kind can be injected."""
    kinds: dict[str, set[str]] = {}
    for stream, targets in HARSH_STREAMS.items():
        drawn = list(islice(faults(1, stream), 800))
        assert {fault.target for fault in drawn} == set(targets)
        kinds[stream] = {fault.kind for fault in drawn}
    assert kinds["network"] == {"corrupt", "half-open", "storm", "slow", "latency"}
    assert kinds["disk"] == set(DISK_FAULTS)
    assert kinds["hostile"] == set(HOSTILE)
    assert {fault.jump_s > 0 for fault in islice(faults(1, "clock"), 50)} == {True, False}
