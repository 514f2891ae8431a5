"""Each way to enter a name refuses that of a component: two clients with one name disconnect each other."""

import msgspec
import pytest

from bus import config
from bus.gateway.config import GatewayConfig
from cloud.collector.config import CollectorConfig
from cloud.retraining.config import TrainerConfig
from console.config import ConsoleConfig
from device.config import DeviceConfig
from edge.config import EdgeConfig
from schemas.errors import TopicError

FOR_DEVICES = (
    *("edge", "edge-2", "collector", "trainer-3", "rollout", "gateway", "console"),
    *("model-server", "operator", "broker", "bridge", "eventbus"),
)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *[(DeviceConfig, f'name = "{name}"') for name in FOR_DEVICES],
        (DeviceConfig, 'node = "cloud"'),
        (EdgeConfig, 'node = "cloud"'),
        (CollectorConfig, 'name = "gateway"'),
        (CollectorConfig, 'name = "trainer-2"'),
        (TrainerConfig, 'name = "collector"'),
        (GatewayConfig, 'name = "edge"'),
        (GatewayConfig, 'nodes = ["edge-1", "cloud"]'),
    ],
)
def test_no_configuration_takes_a_reserved_name(tmp_path, kind, text):
    """Neither a value in a file nor one that the program sets gets through; the sentence has the name."""
    path = tmp_path / "service.toml"
    path.write_text(text)
    with pytest.raises(config.ConfigError, match=r"service\.toml is invalid: .* the name is reserved; "):
        config.load(path, kind)
    with pytest.raises(TopicError, match=r"cannot be called '.*': the name is reserved; "):
        kind(**msgspec.toml.decode(text))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (CollectorConfig, "collector-2"),
        (TrainerConfig, "trainer-10"),
        (GatewayConfig, "gateway-2"),
        (ConsoleConfig, "console-3"),
        (DeviceConfig, "edge-cam"),
    ],
)
def test_other_names_are_taken(kind, name):
    """A component may be numbered, and a name that only begins like a reserved one is none."""
    assert kind(name=name).name == name


@pytest.mark.parametrize(
    ("words", "name"),
    [
        *[(("device", "--name", name), name) for name in FOR_DEVICES],
        (("device", "--node", "cloud"), "cloud"),
        (("edge", "--node", "cloud"), "cloud"),
        (("send", "cat.jpg", "--name", "edge"), "edge"),
        (("send", "cat.jpg", "--node", "cloud"), "cloud"),
        (("doctor", "--node", "cloud"), "cloud"),
        (("gateway", "--nodes", "edge-1,cloud"), "cloud"),
        (("deploy", "verify", "--devices", "edge-1/gateway"), "gateway"),
        (("deploy", "verify", "--nodes", "cloud"), "cloud"),
        (("cloud", "policy", "--nodes", "cloud"), "cloud"),
        (("cloud", "release", "1.tar", "--nodes", "cloud"), "cloud"),
        (("cloud", "rollout", "1.tar", "--nodes", "cloud"), "cloud"),
    ],
)
def test_no_command_takes_a_reserved_name(called, words, name):
    """The option is refused with one sentence that has the name, before anything is opened."""
    done = called(*words)
    assert done.code == 2
    assert f"cannot be called {name!r}: the name is reserved; " in done.err
