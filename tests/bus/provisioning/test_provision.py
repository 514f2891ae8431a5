"""What `gleaner provision` writes and what it keeps."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from bus.config import ClientConfig, load
from bus.mqtt.tls import context
from bus.security import certificates
from cli.main import main
from cloud.collector.config import CollectorConfig
from cloud.retraining.config import TrainerConfig
from device.config import DeviceConfig
from edge.config import EdgeConfig
from tests.sites import provision

FIRST = ("--cloud", "cloud.lan", "--edge", "edge-1", "--edge-host", "10.0.0.7:9000", "--devices", "pi-1,pi-2")


@pytest.fixture
def site(tmp_path) -> Path:
    """A site with one node and two devices."""
    provision(tmp_path / "site", *FIRST)
    return tmp_path / "site"


def contents(site: Path, pattern: str) -> dict[str, bytes]:
    """Return the contents of a site's files by relative path."""
    return {str(path.relative_to(site)): path.read_bytes() for path in site.rglob(pattern) if path.is_file()}


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def error_of(capsys, *words: str) -> str:
    """Run the command, which must fail with exit code 1, and return its error message."""
    capsys.readouterr()
    assert main(["provision", *words]) == 1
    return capsys.readouterr().err.strip()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe junk"])
def test_a_damaged_certificate_is_issued_again_and_a_damaged_key_is_named(site, capsys, content):
    """A certificate follows from its key; without a key, the error names the option to make one."""
    [folder] = {path.parent for path in site.rglob("device.key") if "pi-1" in str(path)}
    key = (folder / "device.key").read_bytes()
    (folder / "device.pem").write_bytes(content)
    assert "device.pem is damaged" in error_of(capsys, str(site), "--list")
    provision(site)
    assert (folder / "device.key").read_bytes() == key
    assert certificates.read((folder / "device.pem").read_bytes()).key_id == certificates.key_id(key)
    (folder / "device.key").write_bytes(b"junk")
    error = error_of(capsys, str(site))
    assert f"{folder / 'device.key'} is damaged" in error
    assert error.endswith("make a new key with --replace edge-1.pi-1")
    provision(site, "--replace", "edge-1.pi-1")
    new = (folder / "device.key").read_bytes()
    assert certificates.read((folder / "device.pem").read_bytes()).key_id == certificates.key_id(new)


@pytest.mark.parametrize("name", ["caf\udce9", "two\nlines", "\x1b[31m"])
def test_a_folder_whose_name_no_configuration_can_contain_is_an_error(tmp_path, capsys, name):
    """Configurations contain the path: bytes that are not UTF-8 and control characters are refused."""
    assert "cannot provision" in error_of(capsys, str(tmp_path / name), *FIRST)
    assert not (tmp_path / name).exists()


def test_a_second_run_changes_nothing(site):
    """Another run without options keeps every file."""
    before = contents(site, "*")
    provision(site)
    assert contents(site, "*") == before


def test_new_nodes_and_devices_are_added(site):
    """New nodes and devices get keys and ACL entries; existing keys and certificates stay."""
    before = contents(site, "*.key") | contents(site, "*.pem")
    provision(site, "--edge", "edge-1", "--devices", "pi-3", "--edge", "edge-2", "--collectors", "3")
    after = contents(site, "*.key") | contents(site, "*.pem")
    assert {path: after[path] for path in before} == before
    assert {"devices/edge-1.pi-3/device.key", "edges/edge-2/edge.key", "cloud/collector-3.key"} <= set(after)
    users = re.findall(r"^user (.*)$", (site / "edges/edge-1/rights").read_text(), re.MULTILINE)
    edge = ("edge", "pi-1", "pi-2", "pi-3", "eventbus")
    assert users == [*(f"edge-1.{name}" for name in edge), "cloud.operator"]
    users = re.findall(r"^user (.*)$", (site / "cloud/rights").read_text(), re.MULTILINE)
    cloud = (
        "collector",
        "collector-2",
        "collector-3",
        "trainer",
        "rollout",
        "gateway",
        "console",
        "notify",
        "operator",
    )
    assert users == ["edge-1", "edge-2", *(f"cloud.{name}" for name in cloud)]


def test_each_of_several_handlers_is_an_identity(site):
    """Each handler has its own certificate, ACL entries and configuration."""
    provision(site, "--edge", "edge-1", "--handlers", "2", "--edge", "edge-2", "--handlers", "2")
    assert "user edge-1.edge-2\n" in (site / "edges/edge-1/rights").read_text()
    further, first = (load(site / f"edges/edge-2/{name}.toml", EdgeConfig) for name in ("edge-2", "edge"))
    assert [(config.node, config.name, config.shares) for config in (first, further)] == [
        ("edge-2", "edge", True),
        ("edge-2", "edge-2", True),
    ]
    assert first.state_dir != further.state_dir
    assert further.broker.tls is not None
    assert Path(further.broker.tls.key or "").name == "edge-2.key"
    assert not load(site / "edges/edge-1/edge.toml", EdgeConfig).shares
    provision(site, "--edge", "edge-1", "--devices", "pi-3")
    assert "user edge-1.edge-2\n" in (site / "edges/edge-1/rights").read_text()


def test_home_assistant_is_an_identity_where_it_is_asked_for(site):
    """Its certificate and rights are at that node alone, and stay; a new edge announces."""
    assert not list(site.rglob("homeassistant.*"))
    provision(site, "--edge", "edge-1", "--edge", "edge-2", "--homeassistant")
    provision(site)
    assert sorted(path.name for path in (site / "edges/edge-2").glob("homeassistant.*")) == [
        "homeassistant.key", "homeassistant.pem",
    ]  # fmt: skip
    rights = (site / "edges/edge-2/rights").read_text()
    assert "user edge-2.homeassistant\ntopic write gleaner/v1/command/edge-2/+\n" in rights
    assert "topic read gleaner/homeassistant/edge-2/#" in rights
    for folder in ("edges/edge-1", "cloud"):
        assert ".homeassistant" not in (site / folder / "rights").read_text()
    assert load(site / "edges/edge-2/edge.toml", EdgeConfig).homeassistant
    assert not load(site / "edges/edge-1/edge.toml", EdgeConfig).homeassistant


def test_a_handler_without_shares_is_reported(site, capsys):
    """A handler's existing configuration is not changed; each run names what is missing until it is added."""
    provision(site, "--edge", "edge-1", "--handlers", "2", "--edge", "edge-2", "--handlers", "2")
    file = site / "edges/edge-1/edge.toml"
    assert re.findall(r"^(.*): add shares = true", capsys.readouterr().out, re.MULTILINE) == [str(file)]
    file.write_text("shares = true\n" + file.read_text())
    provision(site)
    assert "shares = true" not in capsys.readouterr().out


def test_a_removed_device_has_no_permissions_and_no_key(site):
    """`--remove` deletes a device's folder and ACL entries; a new device may have the same name."""
    key = (site / "devices/edge-1.pi-2/device.key").read_bytes()
    provision(site, "--remove", "edge-1.pi-2")
    assert "edge-1.pi-2" not in (site / "edges/edge-1/rights").read_text()
    assert not (site / "devices/edge-1.pi-2").exists()
    provision(site, "--edge", "edge-1", "--devices", "pi-2")
    assert (site / "devices/edge-1.pi-2/device.key").read_bytes() != key


def revoked(site: Path) -> set[int]:
    """Return the serial numbers that the brokers of the site refuse."""
    lists = {
        (site / folder / "revoked.crl").read_bytes() for folder in ("cloud", "edges/edge-1", "authority")
    }
    [same] = lists
    return set().union(*certificates.revoked_serials(same).values())


def test_what_a_site_no_longer_has_is_revoked(site):
    """The certificates of a removed node, a removed collector and a replaced key are revoked, no others."""
    provision(site, "--edge", "edge-2", "--devices", "pi-1", "--collectors", "3")
    assert revoked(site) == set()
    gone = ["edges/edge-2/edge", "edges/edge-2/bridge", "edges/edge-2/broker", "devices/edge-2.pi-1/device"]
    gone += ["cloud/collector-3", "edges/edge-1/edge"]
    serials = {certificate(site / f"{stem}.pem").serial_number for stem in gone}
    provision(site, "--remove", "edge-2", "--collectors", "2", "--replace", "edge-1.edge")
    assert revoked(site) == serials
    assert not (site / "edges/edge-2").exists()
    assert not (site / "devices/edge-2.pi-1").exists()
    before = contents(site, "*")
    provision(site)
    assert contents(site, "*") == before


def test_a_site_of_an_earlier_version_revokes_what_its_folders_have(site):
    """Without a record of what was issued, the certificates in the folders are found before they change."""
    serial = certificate(site / "devices/edge-1.pi-2/device.pem").serial_number
    (site / "issued.json").unlink()
    for path in site.rglob("revoked.crl"):
        path.unlink()
    provision(site, "--remove", "edge-1.pi-2")
    assert revoked(site) == {serial}


def test_a_certificate_of_another_key_is_issued_again(site):
    """A run that ended between the key and the certificate is completed by the next."""
    folder = site / "devices/edge-1.pi-1"
    (folder / "device.key").write_bytes(certificates.new_key())
    provision(site)
    tls = load(folder / "device.toml", DeviceConfig).broker.tls
    assert tls is not None
    assert context(tls)


def test_a_list_writes_nothing_and_warns_30_days_before_the_end(site, capsys):
    """`--list` shows all certificates; its exit code is 1 if one ends within 30 days."""
    before = contents(site, "*")
    capsys.readouterr()
    assert main(["provision", str(site), "--list"]) == 0
    shown = capsys.readouterr().out
    assert "authority gleaner ca" in shown
    assert "edge-1.pi-1" in shown
    assert "soon" not in shown
    assert contents(site, "*") == before
    provision(site, "--renew", "--days", "29")
    capsys.readouterr()
    assert main(["provision", str(site), "--list"]) == 1
    assert "edges/edge-1/edge.pem  (expires soon: --renew)" in capsys.readouterr().out


def test_a_second_rotation_waits_for_the_end_of_the_first(site, capsys):
    """Three keys at a time are refused, unless all earlier ones end now."""
    provision(site, "--rotate", "signing")
    provision(site, "--rotate", "authority")
    assert "is still trusted; wait" in error_of(capsys, str(site), "--rotate", "signing")
    assert "is still trusted; wait" in error_of(capsys, str(site), "--rotate", "authority")
    provision(site, "--rotate", "authority", "--overlap", "0")
    assert (site / "devices/edge-1.pi-1/ca.pem").read_bytes().count(b"BEGIN") == 1
    issuers = {certificate(path).issuer.rfc4514_string() for path in site.glob("devices/*/device.pem")}
    assert issuers == {"CN=gleaner ca 3"}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--replace", "edge-1.pi-9"), "there is no edge-1.pi-9 in this site"),
        (("--remove", "edge-9"), "there is no edge edge-9 in this site"),
    ],
)
def test_an_unknown_identity_cannot_be_ended(site, capsys, words, error):
    """A misspelt name is an error, and nothing is written."""
    before = contents(site, "*")
    assert error in error_of(capsys, str(site), *words)
    assert contents(site, "*") == before


def test_renewing_keeps_keys_and_authorities(site):
    """`--renew` issues every certificate of brokers and clients again, for the same keys."""
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


def test_edited_configurations_are_kept(site):
    """TOML files are not overwritten."""
    path = site / "devices/edge-1.pi-1/device.toml"
    path.write_text('camera = "usb:0"\n' + path.read_text())
    provision(site, "--renew")
    assert load(path, DeviceConfig).camera == "usb:0"


def test_only_the_owner_can_read_the_files(site):
    """Folders have mode 0700 and files 0600."""
    modes = {path.stat().st_mode & 0o777 for path in site.rglob("*") if path.is_dir()} | {
        site.stat().st_mode & 0o777
    }
    assert modes == {0o700}
    assert {path.stat().st_mode & 0o777 for path in site.rglob("*") if path.is_file()} == {0o600}


def test_certificates_are_for_brokers_or_clients_only(site):
    """Certificates have EC P-256 keys, random serial numbers, and a purpose: server or client."""
    serial_numbers = set()
    for path in site.rglob("*.pem"):
        if path.stem in ("ca", "operations", "release"):
            continue
        made = certificate(path)
        public = made.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert public.curve.name == "secp256r1"
        assert made.serial_number.bit_length() > 100
        serial_numbers.add(made.serial_number)
        purposes = list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        broker = path.stem == "broker"
        assert purposes == [ExtendedKeyUsageOID.SERVER_AUTH if broker else ExtendedKeyUsageOID.CLIENT_AUTH]
        assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert len(serial_numbers) == 14
    names = certificate(site / "edges/edge-1/broker.pem").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert str(names.value.get_values_for_type(x509.IPAddress)[0]) == "10.0.0.7"
    assert certificate(site / "cloud/broker.pem").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value.get_values_for_type(x509.DNSName) == ["cloud.lan", "localhost"]


def test_each_component_can_load_its_configuration(site):
    """The TOML files are valid configurations, with the right broker, port and identity."""
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
    trainer = load(site / "cloud/trainer.toml", TrainerConfig)
    assert trainer.release_broker == load(site / "cloud/rollout.toml", ClientConfig).broker
    clients = ("cloud/rollout", "cloud/gateway", "operator/cloud", "operator/edge-1")
    brokers = [load(site / f"{path}.toml", ClientConfig).broker for path in clients]
    for broker in (trainer.broker, *brokers):
        assert broker.tls is not None
        assert all(
            Path(file or "").is_file() for file in (broker.tls.ca, broker.tls.certificate, broker.tls.key)
        )


def test_home_replaces_the_paths_in_files(tmp_path):
    """With `--home` all paths in files are below it, except in the operator's folder."""
    site = tmp_path / "site"
    provision(site, *FIRST, "--home", "/etc/gleaner")
    for path in (*site.rglob("*.toml"), *site.rglob("mosquitto.conf")):
        text = path.read_text()
        assert (str(site) in text) == (path.parent.name == "operator"), path
        assert ("/etc/gleaner/" in text) == (path.parent.name != "operator"), path


def test_an_edge_of_another_machine_knows_where_its_models_are(tmp_path):
    """Without `models_dir` an edge cannot serve a release; each handler has its own folder."""
    site = tmp_path / "site"
    provision(site, *FIRST, "--home", "/etc/gleaner")
    provision(site, "--edge", "edge-1", "--handlers", "2")
    folders = [load(site / f"edges/edge-1/{stem}.toml", EdgeConfig).models_dir for stem in ("edge", "edge-2")]
    assert folders == ["/var/lib/gleaner/models", "/var/lib/gleaner/models-edge-2"]


def test_a_broker_listens_on_all_addresses_unless_its_host_is_loopback(tmp_path, site):
    """A broker listens on all addresses; with a loopback host only on that one."""
    assert "\nlistener 9000\n" in (site / "edges/edge-1/mosquitto.conf").read_text()
    provision(tmp_path / "here", "--cloud", "127.0.0.1")
    conf = (tmp_path / "here/cloud/mosquitto.conf").read_text()
    assert re.findall(r"^listener .*$", conf, re.MULTILINE) == [
        "listener 8883 127.0.0.1",
        "listener 8884 127.0.0.1",
    ]


def test_a_missing_key_is_replaced_with_its_certificate(site):
    """If a client's key is missing, a new key and a new certificate for it are written."""
    folder = site / "devices/edge-1.pi-1"
    (folder / "device.key").unlink()
    provision(site)
    tls = load(folder / "device.toml", DeviceConfig).broker.tls
    assert tls is not None
    assert context(tls)


@pytest.mark.parametrize("name", ["ca", "operations", "signing"])
def test_a_missing_authority_is_an_error(site, capsys, name):
    """A key of the authority is never replaced: with a new CA no client could connect any more."""
    (site / f"authority/{name}.key").unlink()
    assert f"has no authority/{name}.key" in error_of(capsys, str(site))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((), "--cloud"),
        (("--cloud", "not_a_host"), "invalid options"),
        (("--cloud", "c", "--edge", "cloud"), "cannot be called 'cloud'"),
        (("--cloud", "c", "--edge", "e", "--devices", "edge"), "the name is reserved"),
        (("--cloud", "c", "--edge", "e", "--devices", "x" * 63), "64 characters"),
        (("--cloud", "c:65535"), "invalid options"),
        (("--cloud", "c", "--home", "etc/gleaner"), "invalid options"),
        (("--cloud", "c", "--days", "9999999"), "3650 days at most"),
        (("--cloud", "c", "--collectors", "0"), "invalid options"),
        (("--cloud", "c", "--edge", "e", "--handlers", "5"), "invalid options"),
        (("--cloud", "c", "--remove", "edge-1.pi-1"), "there is no device edge-1.pi-1"),
    ],
)
def test_an_invalid_option_is_an_error(tmp_path, capsys, words, error):
    """An invalid option ends with an error message in one line, and nothing is written."""
    message = error_of(capsys, str(tmp_path / "new"), *words)
    assert error in message
    assert "\n" not in message
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "words", [("--cloud", "other.lan"), ("--home", "/else"), ("--edge", "edge-1", "--edge-host", "other.lan")]
)
def test_hosts_and_home_of_a_site_cannot_change(site, capsys, words):
    """Another host or home is an error, because certificates and files contain the first one."""
    assert "cannot change from" in error_of(capsys, str(site), *words)


def test_options_of_an_edge_need_an_edge(tmp_path, capsys):
    """`--devices` without a preceding `--edge` is an error."""
    with pytest.raises(SystemExit):
        main(["provision", str(tmp_path), "--devices", "pi-1"])
    assert "expected --edge before it" in capsys.readouterr().err


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path, capsys):
    """A file in place of the folder ends with an error message in one line."""
    (tmp_path / "file").write_text("")
    message = error_of(capsys, str(tmp_path / "file" / "site"), "--cloud", "c")
    assert "Not a directory" in message
    assert "\n" not in message


def test_a_mirror_gets_what_it_serves_edges_with(site, capsys):
    """`--mirror` makes a server's certificate for its host; it is listed, replaced and removed too."""
    provision(site, "--mirror", "mirror.lan")
    folder = site / "mirrors/mirror.lan"
    assert {path.name for path in folder.iterdir()} == {"mirror.key", "mirror.pem", "ca.pem", "revoked.crl"}
    made = certificate(folder / "mirror.pem")
    purposes = list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    hosts = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert purposes == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert hosts.get_values_for_type(x509.DNSName) == ["mirror.lan"]
    capsys.readouterr()
    assert main(["provision", str(site), "--list"]) == 0
    assert "mirror@mirror.lan" in capsys.readouterr().out
    provision(site, "--replace", "mirror@mirror.lan")
    provision(site, "--remove", "mirror@mirror.lan")
    assert not folder.exists()
    revoked = certificates.revoked_serials((site / "edges/edge-1/revoked.crl").read_bytes())
    assert made.serial_number in {serial for serials in revoked.values() for serial in serials}
    assert "there is no mirror mirror.lan" in error_of(capsys, str(site), "--remove", "mirror@mirror.lan")
    assert "invalid options" in error_of(capsys, str(site), "--mirror", "../mirror")


def test_an_older_version_reads_a_site_that_uses_nothing_newer(site):
    """Fields that the first version did not know are stored only where they are used."""

    def fields() -> set[str]:
        return set(json.loads((site / "site.json").read_bytes()))

    known = {"cloud", "edges", "collectors", "home"}
    assert fields() <= known
    provision(site, "--mirror", "mirror.lan")
    assert fields() - known == {"mirrors"}
    provision(site, "--remove", "mirror@mirror.lan")
    assert fields() <= known


@pytest.mark.parametrize("path", [("mirrours",), ("edges", "edge-1", "cameras"), ("cloud", "path")])
@pytest.mark.parametrize("words", [(), ("--list",), ("--edge", "edge-2")])
def test_a_site_of_a_newer_version_is_left_as_it_is(site, capsys, path, words):
    """What a newer version wrote is neither dropped nor revoked: the command ends, and names the field."""
    stored = json.loads((site / "site.json").read_bytes())
    within = stored
    for name in path[:-1]:
        within = within[name]
    within[path[-1]] = ["a.lan"]
    (site / "site.json").write_text(json.dumps(stored))
    before = contents(site, "*")
    error = error_of(capsys, str(site), *words)
    assert f"has the field '{path[-1]}', which this version of Gleaner does not know" in error
    assert "\n" not in error
    assert contents(site, "*") == before
