"""A mirror at a site: each bundle over the uplink once, verified, bounded, and never needed."""

import asyncio
import contextlib
import hashlib
import random
import re
import shutil
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from bus.broker.process import free_port
from bus.config import Tls
from bus.mqtt.tls import server_context
from bus.security import certificates
from cli.main import main
from cloud.export.part_lists import write_part_lists
from edge.mirror import listener, mirror_server
from edge.mirror.bundle_store import BundleStore, is_below
from edge.mirror.listener import serving
from edge.mirror.mirror_server import Mirror, MirrorConfig
from edge.models.transfer.bundle_source import FetchError, Traffic
from edge.models.transfer.download import fetch_bundle
from edge.models.transfer.installed_parts import Installed, stored_bundle
from edge.models.transfer.mirror_client import PATH, SiteMirror
from schemas.errors import TransientError
from schemas.messages import Release
from tests.conftest import DEADLINE_S
from tests.file_server import FileServer, web_server
from tests.serving import release_of, tar_of
from tests.sites import files, provision

EDGES = 20
SIZE_BYTES = 400_000
ROOM_BYTES = 10_000_000
LITTLE_BYTES = 60_000


class Site:
    """A site with a mirror, and the origin far away.

    Args:
        shop: Folder of the origin.
        folder: Of the mirror.
        mirror: Address of the mirror.
        origin: The origin's server.
        address: Its address.
    """

    def __init__(self, shop: Path, folder: Path, mirror: str, origin: FileServer, address: str) -> None:
        self.shop, self.folder, self.mirror = shop, folder, mirror
        self.origin, self.address = origin, address
        self._edges = ThreadPoolExecutor(EDGES)

    def publish(self, version: int, content: bytes) -> Release:
        """Publish a bundle with the lists of its parts."""
        bundle = tar_of(self.shop / f"{version}.tar", [("weights", content)])
        release = release_of(bundle, version, url=f"{self.address}/{version}.tar")
        return msgspec.structs.replace(release, parts=write_part_lists(bundle, release.sha256))

    def origin_bytes(self, version: int) -> int:
        """Return the size of a bundle with its lists."""
        return sum(path.stat().st_size for path in self.shop.glob(f"{version}.tar*"))

    async def fetch(
        self,
        release: Release,
        target: Path,
        installed: tuple[Installed, ...] = (),
        mirror: str | None = None,
        files: Tls | None = None,
    ) -> Traffic:
        """Fetch a bundle as an edge does, and check it."""
        traffic = Traffic()
        asked = SiteMirror(mirror or self.mirror, files)
        fetch = partial(fetch_bundle, release, target, installed, traffic, lambda: False, mirror=asked)
        # Not in the threads of the mirror: edges are other machines.
        await asyncio.get_running_loop().run_in_executor(self._edges, fetch)
        content = await asyncio.to_thread(target.read_bytes)
        assert hashlib.sha256(content).hexdigest() == release.sha256
        return traffic


@contextlib.asynccontextmanager
async def mirroring(
    folder: Path,
    origin: str,
    *,
    max_bytes: int = ROOM_BYTES,
    tls: ssl.SSLContext | None = None,
    edges_only: bool = False,
) -> AsyncIterator[str]:
    """Run a mirror; yields its address."""
    async with asyncio.TaskGroup() as tasks:
        mirror = Mirror(BundleStore(folder, max_bytes), (origin,), tasks, edges_only=edges_only)
        async with serving(mirror.app(), "127.0.0.1:0", tls) as port:
            yield f"http{'s' if tls else ''}://127.0.0.1:{port}"
            mirror.stop()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A site with a mirror, and an origin."""
    (tmp_path / "shop").mkdir()
    origin = FileServer(tmp_path / "shop")
    async with web_server(origin.answer) as address, mirroring(tmp_path / "mirror", address) as mirror:
        yield Site(tmp_path / "shop", tmp_path / "mirror", mirror, origin, address)


def weights(seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(SIZE_BYTES)


async def test_a_site_fetches_each_byte_once(site: Site, tmp_path: Path) -> None:
    """Twenty edges ask at once: each byte of the bundle and its lists comes from the origin once."""
    release = site.publish(1, weights())
    fetched = await asyncio.gather(*(site.fetch(release, tmp_path / f"edge-{n}.tar") for n in range(EDGES)))
    assert SIZE_BYTES <= site.origin.sent_bytes <= site.origin_bytes(1)
    assert sum(traffic.fetched_bytes for traffic in fetched) > EDGES * SIZE_BYTES
    await site.fetch(release, tmp_path / "later.tar")
    assert site.origin.sent_bytes <= site.origin_bytes(1)


async def test_the_next_version_costs_its_difference(site: Site, tmp_path: Path) -> None:
    """The mirror fetches the parts that its bundles lack, and an edge those that it lacks, by ranges."""
    first = site.publish(1, weights())
    await site.fetch(first, tmp_path / "edge.tar")
    site.origin.sent_bytes = 0
    second = site.publish(2, weights()[: SIZE_BYTES // 2] + b"other" + weights()[SIZE_BYTES // 2 :])
    lists = ((site.shop / f"1.tar{suffix}").read_bytes() for suffix in (".parts", ".parts.parts"))
    installed = stored_bundle(tmp_path / "edge.tar", *lists)
    traffic = await site.fetch(second, tmp_path / "second.tar", (installed,))
    assert site.origin.sent_bytes < LITTLE_BYTES
    assert traffic.fetched_bytes < LITTLE_BYTES
    assert traffic.reused_bytes > SIZE_BYTES // 2


async def test_a_corrupted_mirror_costs_bytes_alone(site: Site, tmp_path: Path) -> None:
    """An edge notices wrong bytes and takes these from the origin; the mirror mends itself when it starts."""
    release = site.publish(1, weights())
    await site.fetch(release, tmp_path / "edge.tar")
    stored = site.folder / f"{release.sha256}.tar"
    content = bytearray(stored.read_bytes())
    content[SIZE_BYTES // 2] ^= 1
    stored.write_bytes(content)
    before = site.origin.sent_bytes
    with capture_logs() as logged:
        await site.fetch(release, tmp_path / "second.tar")
    assert "release.mirror_unusable" in {line["event"] for line in logged}
    assert before < site.origin.sent_bytes < before + LITTLE_BYTES
    async with mirroring(site.folder, site.address) as again:
        before = site.origin.sent_bytes
        await site.fetch(release, tmp_path / "third.tar", mirror=again)
        assert stored.read_bytes() == (site.shop / "1.tar").read_bytes()
        assert site.origin.sent_bytes <= before + site.origin_bytes(1)


async def test_an_origin_that_is_away(tmp_path: Path) -> None:
    """What is stored is served while the origin is away; for the rest the edge gets the origin's error."""
    (tmp_path / "shop").mkdir()
    origin = FileServer(tmp_path / "shop")
    async with contextlib.AsyncExitStack() as running:
        address = await running.enter_async_context(web_server(origin.answer))
        async with mirroring(tmp_path / "mirror", address) as mirror:
            site = Site(tmp_path / "shop", tmp_path / "mirror", mirror, origin, address)
            stored, other = site.publish(1, weights()), site.publish(2, weights(2))
            await site.fetch(stored, tmp_path / "edge.tar")
            await running.aclose()
            await site.fetch(stored, tmp_path / "second.tar")
            with pytest.raises(FetchError, match="cannot download version 2"):
                await site.fetch(other, tmp_path / "third.tar")


async def test_no_mirror_at_the_address(site: Site, tmp_path: Path) -> None:
    """Without a mirror, with one of another origin, or one that must not see a secret, the origin is used."""
    release = site.publish(1, weights())
    async with mirroring(tmp_path / "other", "http://releases.example") as other:
        for at, mirror in enumerate(("http://127.0.0.1:1", other)):
            await site.fetch(release, tmp_path / f"{at}.tar", mirror=mirror)
    secret = msgspec.structs.replace(release, url=f"{release.url}?signature=abc", parts=None)
    await site.fetch(secret, tmp_path / "secret.tar")
    assert list(site.folder.iterdir()) == []


async def test_the_least_used_bundle_is_removed(site: Site, tmp_path: Path) -> None:
    """The mirror's disk is bounded; a bundle larger than all of it is refused, and comes from the origin."""
    room = 2 * site.origin_bytes(1) + 3 * SIZE_BYTES
    async with mirroring(tmp_path / "small", site.address, max_bytes=room) as mirror:
        releases = [site.publish(version, weights(version)) for version in (1, 2, 3)]
        for release in (releases[0], releases[1], releases[0], releases[2]):
            await site.fetch(release, tmp_path / "edge.tar", mirror=mirror)
        stored = {path.stem for path in (tmp_path / "small").glob("*.tar")}
        assert stored == {releases[0].sha256, releases[2].sha256}
        assert sum(path.stat().st_size for path in (tmp_path / "small").iterdir()) <= room
        await site.fetch(site.publish(4, 4 * weights()), tmp_path / "edge.tar", mirror=mirror)
        assert len(list((tmp_path / "small").glob("*.tar"))) == 2


async def test_a_download_keeps_its_room(site: Site, tmp_path: Path) -> None:
    """A second download neither removes the first one nor takes its room; it is refused."""
    first, second = site.publish(1, weights(1)), site.publish(2, weights(2))
    store = BundleStore(tmp_path / "small", SIZE_BYTES * 3 // 2)
    refused: list[TransientError] = []
    answer = site.origin.answer

    async def beginning_another(request: web.Request) -> web.StreamResponse:
        if not refused:
            with pytest.raises(TransientError, match="no room") as caught:
                await asyncio.to_thread(store.fetch, second, lambda: False)
            refused.append(caught.value)
        return await answer(request)

    async with web_server(beginning_another) as address:
        there = msgspec.structs.replace(first, url=f"{address}/1.tar")
        await asyncio.to_thread(store.fetch, there, lambda: False)
    assert refused
    assert store.has(first)


async def test_only_bundles_are_served(site: Site, tmp_path: Path) -> None:
    """No name leads out of the folder, no unfinished download is served, and no other URL fetched."""
    (tmp_path / "secret.tar").write_bytes(b"secret")
    (site.folder / f"{'0' * 64}.incoming").write_bytes(b"half")
    asked = {"url": "http://127.0.0.1:1/x.tar", "sha256": "0" * 64, "size_bytes": 1}
    async with aiohttp.ClientSession(site.mirror) as session:
        for name in ("..%2Fsecret.tar", "%2E%2E/secret.tar", f"{'0' * 64}.incoming", "x.tar", "%00"):
            async with session.get(aiohttp.client.URL(f"{site.mirror}{PATH}/{name}", encoded=True)) as answer:
                assert answer.status == 404
        for body, status in ((asked, 403), ({**asked, "sha256": "../../x"}, 400), ({}, 400)):
            async with session.post(PATH, json=body) as answer:
                assert answer.status == status


@pytest.mark.parametrize(
    "url",
    [
        "https://releases.example/models-old/1.tar",
        "https://releases.example/models/../secret",
        "https://releases.example/models/%2e%2e/secret",
        "https://releases.example/models/%252e%252e/secret",
        "https://releases.example/models/..\\secret",
        "https://releases.example:8443/models/1.tar",
        "https://me@releases.example/models/1.tar",
        "https://releases.example@evil.example/models/1.tar",
        "http://releases.example/models/1.tar",
        "file:///models/1.tar",
        "https://releases.example/models",
        "https://[releases.example/models/1.tar",
    ],
)
def test_urls_outside_an_origin(url: str) -> None:
    """A URL is below an origin only if scheme, host, port and folder are the same."""
    assert not is_below(url, ("https://releases.example/models/",))
    assert is_below(
        "https://releases.example/models/a/1.tar?signature=x", ("https://releases.example/models",)
    )


async def test_a_mirror_with_tls(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS the edge compares the mirror's certificate with the authorities that it trusts."""
    key, own = certificates.new_key(), certificates.new_key()
    authority = certificates.Authority(certificates.authority_certificate(key, "site", days=1), key)
    server = certificates.broker_certificate(authority, own, "mirror", ["127.0.0.1"], days=1)
    (tmp_path / "mirror.pem").write_bytes(own + server)
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "mirror.pem")
    release = site.publish(1, weights())
    async with mirroring(tmp_path / "tls", site.address, tls=tls) as mirror:
        with capture_logs() as logged:
            await site.fetch(release, tmp_path / "edge.tar", mirror=mirror)
        assert "CERTIFICATE_VERIFY_FAILED" in str(logged)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with capture_logs() as logged:
            await site.fetch(release, tmp_path / "edge.tar", mirror=mirror)
        assert {line["log_level"] for line in logged} == {"info"}


async def test_a_mirror_for_edges_alone(site: Site, tmp_path: Path) -> None:
    """Served are edges of the site, by the certificates that they have; no device, nobody without one.

    An edge whose key was replaced is refused by the list of revoked certificates. Each gets its bundle from
    the origin then.
    """
    home = tmp_path / "site"
    provision(home, "--cloud", "cloud", "--edge", "edge-1", "--devices", "pi-1", "--mirror", "127.0.0.1")
    edge, device = files(home / "edges/edge-1", "edge"), files(home / "devices/edge-1.pi-1", "device")
    stolen = tmp_path / "stolen"
    shutil.copytree(home / "edges/edge-1", stolen)
    provision(home, "--replace", "edge-1.edge")
    own = home / "mirrors/127.0.0.1"
    names = ("mirror.pem", "mirror.key", "ca.pem", "revoked.crl")
    tls = server_context(*(str(own / name) for name in names))
    release = site.publish(1, weights())
    async with mirroring(tmp_path / "tls", site.address, tls=tls, edges_only=True) as mirror:
        with capture_logs() as logged:
            await site.fetch(release, tmp_path / "edge.tar", mirror=mirror, files=edge)
        assert {line["log_level"] for line in logged} == {"info"}
        refused = "it may not accept the certificate of this edge"
        cases = [(device, "only an edge"), (Tls(ca=edge.ca), refused), (files(stolen, "edge"), refused)]
        for who, reason in [*cases, (Tls(ca=str(tmp_path / "gone.pem")), "gone.pem")]:
            with capture_logs() as logged:
                await site.fetch(release, tmp_path / "other.tar", mirror=mirror, files=who)
            (unusable,) = [line for line in logged if line["event"] == "release.mirror_unusable"]
            assert reason in unusable["reason"]


async def test_a_mirror_is_not_reached_through_a_proxy(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy for the way out of the site is not asked for what is at the site."""
    release = site.publish(1, weights())
    await site.fetch(release, tmp_path / "edge.tar")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with capture_logs() as logged:
        await site.fetch(release, tmp_path / "second.tar")
    assert logged == []


async def test_probes_of_a_mirror(site: Site, tmp_path: Path) -> None:
    """It is ready while its disk takes bundles, also without its origin; it is alive, and measured."""
    listening, probed = free_port(), free_port()
    folder = tmp_path / "state"
    config = MirrorConfig(
        listen=f"127.0.0.1:{listening}",
        origins=(site.address, "http://127.0.0.1:1"),
        state_dir=str(folder),
        max_bytes=ROOM_BYTES,
        probes=f"127.0.0.1:{probed}",
    )
    mirror, release = f"http://127.0.0.1:{listening}", site.publish(1, weights())
    async with aiohttp.ClientSession(f"http://127.0.0.1:{probed}") as session:

        async def seen(path: str) -> tuple[int, str]:
            async with session.get(path) as answer:
                return answer.status, await answer.text()

        async def answers() -> bool:
            try:
                return await seen("/readyz") == (200, "ready\n")
            except aiohttp.ClientError:
                return False

        task = asyncio.create_task(mirror_server.run(config))
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not await answers():  # noqa: ASYNC110  # of a server
                    await asyncio.sleep(0.01)
            away = msgspec.structs.replace(release, url="http://127.0.0.1:1/1.tar")
            with pytest.raises(FetchError):
                await site.fetch(away, tmp_path / "edge.tar", mirror=mirror)
            assert (await seen("/readyz"))[0] == 200
            shutil.rmtree(folder)
            await site.fetch(release, tmp_path / "edge.tar", mirror=mirror)
            status, reason = await seen("/readyz")
            assert (status, str(folder) in reason) == (503, True)
            assert (await seen("/livez"))[0] == 200
            folder.mkdir()
            await site.fetch(release, tmp_path / "edge.tar", mirror=mirror)
            assert await answers()
            _, page = await seen("/metrics")
            assert 'gleaner_mirror_fetches_total{outcome="fetched"} 1.0' in page
            assert 'gleaner_mirror_fetches_total{outcome="failed"} 2.0' in page
            (fetched,) = re.findall(r"^gleaner_mirror_fetched_bytes_total (\S+)$", page, re.MULTILINE)
            assert SIZE_BYTES < float(fetched) <= site.origin_bytes(1)
            assert "gleaner_ready 1.0" in page
            assert "system_filesystem_usage_bytes{" in page
            assert len([line for line in page.splitlines() if not line.startswith("#")]) <= 40
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_g3_connections_that_say_nothing_give_way(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G3: beyond the bound the oldest idle one is closed; a bundle is served meanwhile."""
    monkeypatch.setattr(listener, "_CONNECTIONS", 4)
    async with mirroring(tmp_path / "other", site.address) as address:
        port = int(address.rpartition(":")[2])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
        release = site.publish(1, weights())
        await site.fetch(release, tmp_path / "edge.tar", mirror=address)
        assert await asyncio.wait_for(idle[0][0].read(), DEADLINE_S) == b""
        for _, writer in idle:
            writer.close()


async def test_the_body_of_a_request_has_a_deadline(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends a part of it and waits gets 408."""
    monkeypatch.setattr(mirror_server, "_REQUEST_S", 0.05)
    host, port = site.mirror.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
    assert b" 408 " in await asyncio.wait_for(reader.readline(), DEADLINE_S)
    writer.close()


@pytest.mark.parametrize("body", [b"[" * 8000, b'{"url": "\xff"}', b"", b'{"x":' * 1000])
async def test_a_request_that_is_none_is_refused(site: Site, body: bytes) -> None:
    """With 400 and a reason, however it is broken; none of it is an error of the mirror."""
    async with aiohttp.ClientSession() as session, session.post(f"{site.mirror}{PATH}", data=body) as answer:
        assert answer.status == 400


def test_options_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong origin, and files without those that they need, are refused with one error message."""
    cases = [("file:///models", ()), ("https://x/?a=b", ()), ("https://x/", ("--key", "k.pem"))]
    cases += [
        ("https://x/", ("--clients", "ca.pem")),
        ("https://x/", ("--certificate", "c.pem", "--crl", "r.crl")),
    ]
    for origin, words in cases:
        assert main(["mirror", "--origin", origin, *words]) != 0
        assert capsys.readouterr().err.startswith("gleaner mirror: option --")
