"""A mosquitto whose owner was killed is ended by the next start; that of a living owner is not."""

import os
import signal
import subprocess
import sys

import pytest

from bus.broker import stray
from bus.broker.locate import BrokerError
from bus.broker.process import BrokerProcess, free_port, is_listening, local_broker
from tests.conftest import ROOT

OWNER = """
import sys, time
from pathlib import Path
from bus.broker.process import BrokerProcess
broker = BrokerProcess(Path(sys.argv[1]), port=int(sys.argv[2]))
broker.start()
print(broker.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def owned(tmp_path, mosquitto):
    """A broker in its own process: folder, port, pid of the broker, and the owner."""
    port = free_port()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), str(port)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    yield tmp_path, port, pid, owner
    owner.kill()
    owner.wait()
    owner.stdout.close()
    stray.end_stray(tmp_path)


def test_the_broker_of_a_killed_owner_is_replaced(owned):
    """After kill -9 the next start has the port and the folder; the old process is gone."""
    folder, port, pid, owner = owned
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert is_listening(port)
    with local_broker(folder, port=port) as broker:
        assert broker.pid != pid
        assert stray._started(pid) is None


def test_the_broker_of_a_living_owner_is_left_alone(owned, mosquitto):
    """A second start on the same port is refused, and the first broker continues."""
    folder, port, pid, _ = owned
    with pytest.raises(BrokerError, match="in use"):
        BrokerProcess(folder, port=port, program=mosquitto).start()
    os.kill(pid, 0)


@pytest.mark.parametrize("content", ["", "x", "1 2 3", "1 0 1 0", "OWN 1 999999 1"])
def test_a_foreign_or_torn_record_ends_nothing(tmp_path, content):
    """A process id that is used again by another program is not ours."""
    (tmp_path / "mosquitto.pid").write_text(content.replace("OWN", str(os.getpid())))
    assert not stray.end_stray(tmp_path)
