"""What `gleaner provision` writes, and what it leaves alone."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from bus.config import ClientConfig, load
from bus.mqtt.tls import context
from cli.main import main
from cloud.collector.config import CollectorConfig
from device.config import DeviceConfig
from edge.config import EdgeConfig
from tests.sites import provision

FIRST = ("--cloud", "cloud.lan", "--edge", "edge-1", "--edge-host", "10.0.0.7:9000", "--devices", "pi-1,pi-2")


@pytest.fixture
def site(tmp_path) -> Path:
    """A site of one node with two devices."""
    provision(tmp_path / "site", *FIRST)
    return tmp_path / "site"


def contents(site: Path, pattern: str) -> dict[str, bytes]:
    """Return the files of a site by their path in it."""
    return {str(path.relative_to(site)): path.read_bytes() for path in site.rglob(pattern) if path.is_file()}


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def refusal(capsys, *words: str) -> str:
    """Return the one sentence with which the command refuses."""
    capsys.readouterr()
    assert main(["provision", *words]) == 1
    return capsys.readouterr().err.strip()


def test_again_changes_nothing(site):
    """A second run keeps every file as it is."""
    before = contents(site, "*")
    provision(site)
    assert contents(site, "*") == before


def test_more_devices_are_added_beside_the_others(site):
    """New devices and nodes get keys and rights; no key or certificate that is there changes."""
    before = contents(site, "*.key") | contents(site, "*.pem")
    provision(site, "--edge", "edge-1", "--devices", "pi-3", "--edge", "edge-2", "--collectors", "3")
    after = contents(site, "*.key") | contents(site, "*.pem")
    assert {path: after[path] for path in before} == before
    assert {"devices/edge-1.pi-3/device.key", "edges/edge-2/edge.key", "cloud/collector-3.key"} <= set(after)
    users = re.findall(r"^user (.*)$", (site / "edges/edge-1/rights").read_text(), re.MULTILINE)
    edge = ("edge", "pi-1", "pi-2", "pi-3", "eventbus")
    assert users == [*(f"edge-1.{name}" for name in edge), "cloud.operator"]
    users = re.findall(r"^user (.*)$", (site / "cloud/rights").read_text(), re.MULTILINE)
    cloud = ("collector", "collector-2", "collector-3", "trainer", "rollout", "gateway", "operator")
    assert users == ["edge-1", "edge-2", *(f"cloud.{name}" for name in cloud)]


def test_handlers_that_share_are_identities_of_their_own(site):
    """Each has a certificate, rights and a file of its own; the first one's file is the user's already."""
    provision(site, "--edge", "edge-1", "--handlers", "2", "--edge", "edge-2", "--handlers", "2")
    assert "user edge-1.edge-2\n" in (site / "edges/edge-1/rights").read_text()
    further, first = (load(site / f"edges/edge-2/{name}.toml", EdgeConfig) for name in ("edge-2", "edge"))
    assert [(one.node, one.name, one.shares) for one in (first, further)] == [
        ("edge-2", "edge", True),
        ("edge-2", "edge-2", True),
    ]
    assert first.state_dir != further.state_dir
    assert further.broker.tls is not None
    assert Path(further.broker.tls.key or "").name == "edge-2.key"
    assert not load(site / "edges/edge-1/edge.toml", EdgeConfig).shares
    provision(site, "--edge", "edge-1", "--devices", "pi-3")
    assert "user edge-1.edge-2\n" in (site / "edges/edge-1/rights").read_text()


def test_a_handler_that_would_not_share_is_named(site, capsys):
    """The first handler's file is not rewritten, so each run says what to change there, until it is."""
    provision(site, "--edge", "edge-1", "--handlers", "2", "--edge", "edge-2", "--handlers", "2")
    file = site / "edges/edge-1/edge.toml"
    assert re.findall(r"^(.*): expected shares = true", capsys.readouterr().out, re.MULTILINE) == [str(file)]
    file.write_text("shares = true\n" + file.read_text())
    provision(site)
    assert "expected shares" not in capsys.readouterr().out


def test_a_removed_device_has_no_rights_and_no_key(site):
    """`--remove` takes a device out of its broker's list and deletes its folder; the name may come again."""
    key = (site / "devices/edge-1.pi-2/device.key").read_bytes()
    provision(site, "--remove", "edge-1.pi-2")
    assert "edge-1.pi-2" not in (site / "edges/edge-1/rights").read_text()
    assert not (site / "devices/edge-1.pi-2").exists()
    provision(site, "--edge", "edge-1", "--devices", "pi-2")
    assert (site / "devices/edge-1.pi-2/device.key").read_bytes() != key


def test_renewing_keeps_keys_and_authorities(site):
    """`--renew` makes every certificate of a broker and a client anew, for the same key."""
    keys, authorities = contents(site, "*.key"), contents(site / "authority", "*")
    before = contents(site, "*.pem")
    provision(site, "--renew", "--days", "10")
    assert contents(site, "*.key") == keys
    assert contents(site / "authority", "*") == authorities
    after = contents(site, "*.pem")
    kept = {path for path in before if before[path] == after[path]}
    assert {Path(path).name for path in kept} == {"ca.pem", "operations.pem", "release.pem"}
    made = certificate(site / "edges/edge-1/edge.pem")
    assert made.not_valid_after_utc - datetime.now(UTC) < timedelta(days=10, seconds=1)
    assert made.public_key() == x509.load_pem_x509_certificate(before["edges/edge-1/edge.pem"]).public_key()


def test_edited_configurations_stay(site):
    """The TOML files are the user's once they are written."""
    path = site / "devices/edge-1.pi-1/device.toml"
    path.write_text('camera = "usb:0"\n' + path.read_text())
    provision(site, "--renew")
    assert load(path, DeviceConfig).camera == "usb:0"


def test_nobody_else_can_read_anything(site):
    """Folders are 0700 and files 0600, so also when they are copied with their modes."""
    modes = {path.stat().st_mode & 0o777 for path in site.rglob("*") if path.is_dir()} | {
        site.stat().st_mode & 0o777
    }
    assert modes == {0o700}
    assert {path.stat().st_mode & 0o777 for path in site.rglob("*") if path.is_file()} == {0o600}


def test_certificates_are_for_one_side_and_one_name(site):
    """EC P-256, random serial numbers, a name, and either a broker's purpose or a client's."""
    seen = set()
    for path in site.rglob("*.pem"):
        if path.stem in ("ca", "operations", "release"):
            continue
        made = certificate(path)
        public = made.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert public.curve.name == "secp256r1"
        assert made.serial_number.bit_length() > 100
        seen.add(made.serial_number)
        purposes = list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        broker = path.stem == "broker"
        assert purposes == [ExtendedKeyUsageOID.SERVER_AUTH if broker else ExtendedKeyUsageOID.CLIENT_AUTH]
        assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert len(seen) == 12
    names = certificate(site / "edges/edge-1/broker.pem").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert str(names.value.get_values_for_type(x509.IPAddress)[0]) == "10.0.0.7"
    assert certificate(site / "cloud/broker.pem").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value.get_values_for_type(x509.DNSName) == ["cloud.lan", "localhost"]


def test_each_component_can_load_its_file(site):
    """The TOML files are configurations of the services, with the right broker, port and identity."""
    device = load(site / "devices/edge-1.pi-2/device.toml", DeviceConfig)
    assert (device.node, device.name, device.broker.host, device.broker.port) == (
        "edge-1",
        "pi-2",
        "10.0.0.7",
        9000,
    )
    edge = load(site / "edges/edge-1/edge.toml", EdgeConfig)
    assert (edge.node, edge.broker.port) == ("edge-1", 9000)
    assert edge.release_key == str(site / "edges/edge-1/release.pem")
    collector = load(site / "cloud/collector-2.toml", CollectorConfig)
    assert (collector.name, collector.broker.host, collector.broker.port) == (
        "collector-2",
        "cloud.lan",
        8884,
    )
    for path in ("cloud/rollout", "cloud/trainer", "cloud/gateway", "operator/cloud", "operator/edge-1"):
        broker = load(site / f"{path}.toml", ClientConfig).broker
        assert broker.tls is not None
        assert all(
            Path(file or "").is_file() for file in (broker.tls.ca, broker.tls.certificate, broker.tls.key)
        )


def test_folders_for_other_machines_name_their_paths_there(tmp_path):
    """With `--home` every path in them is below it, but for the operator's, who stays."""
    site = tmp_path / "site"
    provision(site, *FIRST, "--home", "/etc/gleaner")
    for path in (*site.rglob("*.toml"), *site.rglob("mosquitto.conf")):
        text = path.read_text()
        assert (str(site) in text) == (path.parent.name == "operator"), path
        assert ("/etc/gleaner/" in text) == (path.parent.name != "operator"), path


def test_a_broker_listens_everywhere_but_for_a_loopback_host(tmp_path, site):
    """The host's address may not be the machine's own, as behind NAT; a loopback host stays on loopback."""
    assert "\nlistener 9000\n" in (site / "edges/edge-1/mosquitto.conf").read_text()
    provision(tmp_path / "here", "--cloud", "127.0.0.1")
    conf = (tmp_path / "here/cloud/mosquitto.conf").read_text()
    assert re.findall(r"^listener .*$", conf, re.MULTILINE) == [
        "listener 8883 127.0.0.1",
        "listener 8884 127.0.0.1",
    ]


def test_a_lost_key_is_replaced_with_its_certificate(site):
    """Whoever deletes a client's key gets a new one, and a certificate that fits it."""
    folder = site / "devices/edge-1.pi-1"
    (folder / "device.key").unlink()
    provision(site)
    tls = load(folder / "device.toml", DeviceConfig).broker.tls
    assert tls is not None
    assert context(tls)


@pytest.mark.parametrize("name", ["ca", "operations", "signing"])
def test_a_lost_authority_is_never_replaced(site, capsys, name):
    """A site whose authority is elsewhere is refused: with a new one nobody could connect any more."""
    (site / f"authority/{name}.key").unlink()
    assert f"expected authority/{name}.key, got none" in refusal(capsys, str(site))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--cloud"),
        (("--cloud", "not a host"), "expected names and hosts"),
        (("--cloud", "c", "--edge", "cloud"), "which is the cloud's"),
        (("--cloud", "c", "--edge", "e", "--devices", "edge"), "not reserved"),
        (("--cloud", "c", "--edge", "e", "--devices", "x" * 63), "64 characters"),
        (("--cloud", "c:65535"), "expected names and hosts"),
        (("--cloud", "c", "--home", "etc/gleaner"), "expected names and hosts"),
        (("--cloud", "c", "--days", "9999999"), "3650 days at most"),
        (("--cloud", "c", "--collectors", "0"), "expected names and hosts"),
        (("--cloud", "c", "--edge", "e", "--handlers", "5"), "expected names and hosts"),
        (("--cloud", "c", "--remove", "edge-1.pi-1"), "none such"),
    ],
)
def test_what_cannot_be_provisioned_is_one_sentence(tmp_path, capsys, words, said):
    """A wrong option is refused in words, and nothing is written."""
    sentence = refusal(capsys, str(tmp_path / "new"), *words)
    assert said in sentence
    assert "\n" not in sentence
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "words", [("--cloud", "other.lan"), ("--home", "/else"), ("--edge", "edge-1", "--edge-host", "other.lan")]
)
def test_what_is_certified_does_not_change_in_passing(site, capsys, words):
    """Another host or home for what is there is refused: certificates and files name the first one."""
    assert "as before" in refusal(capsys, str(site), *words)


def test_options_of_a_node_need_one(tmp_path, capsys):
    """`--devices` belongs to the `--edge` before it."""
    with pytest.raises(SystemExit):
        main(["provision", str(tmp_path), "--devices", "pi-1"])
    assert "expected --edge before it" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    """A file where the folder should be is said in words."""
    (tmp_path / "file").write_text("")
    sentence = refusal(capsys, str(tmp_path / "file" / "site"), "--cloud", "c")
    assert "Not a directory" in sentence
    assert "\n" not in sentence
