import asyncio
import contextlib
import shutil
import socket
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from edge.models.bundle import BundleError
from edge.models.transfer import bundle_source
from edge.models.transfer.bundle_source import DiskError, FetchError
from edge.models.transfer.whole_bundle import fetch
from tests.conftest import fill
from tests.file_server import dripping, web_server
from tests.serving import pack, release_of, saved_models


@pytest.fixture
def packed(tmp_path):
    return pack(saved_models() / "straight", tmp_path / "bundle.tar")


async def test_a_bundle_is_fetched_over_http(packed, tmp_path):
    """An HTTP URL works like a file."""

    async def serve(_) -> web.FileResponse:
        return web.FileResponse(packed)

    async with web_server(serve) as address:
        release = release_of(packed, 2, url=f"{address}/bundle.tar")
        await asyncio.to_thread(fetch, release, tmp_path / "copy.tar")
    assert (tmp_path / "copy.tar").read_bytes() == packed.read_bytes()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sha256": "0" * 64}, "expected sha256 0000"),
        ({"size_bytes": 1000}, "expected 1000 bytes"),
        ({"size_bytes": 2**40}, "expected 1099511627776 bytes"),
        ({"url": "ftp://example.org/x"}, "expected a scheme of"),
        ({"url": "/etc/passwd"}, "expected a scheme of"),
        ({"url": "http://[::1/x"}, "expected a scheme of"),
    ],
)
def test_a_bundle_that_differs_from_its_release_is_a_permanent_error(packed, tmp_path, changes, complaint):
    """Another digest, size or URL scheme than released is not retried."""
    with pytest.raises(BundleError, match=complaint):
        fetch(release_of(packed, 2, **changes), tmp_path / "copy.tar")


@pytest.mark.parametrize(
    "name",
    ["a b", "100%", "%41", "a#b?c", "käfer", "a*[b]", "a::b", "2\nlines", "caf\udce9", "-rf", "l" * 250],
)
def test_a_bundle_is_fetched_from_a_path_of_any_name(packed, tmp_path, name):
    """The URL that `as_uri` writes is read back as the same path, with any bytes in it."""
    folder = tmp_path / name
    folder.mkdir()
    copy = shutil.copy(packed, folder / name[:200])
    fetch(release_of(packed, 2, url=Path(copy).as_uri()), tmp_path / "copy.tar")
    assert (tmp_path / "copy.tar").read_bytes() == packed.read_bytes()


@pytest.mark.parametrize(
    "url", ["file://elsewhere/a.tar", "file:a.tar", "file:///a.tar?b", "file:///a%00.tar"]
)
def test_a_file_url_that_names_no_path_here_is_a_permanent_error(packed, tmp_path, url):
    """Another host, a relative path, a query and a null byte are refused with the form to write."""
    with pytest.raises(BundleError, match="%3F stands for"):
        fetch(release_of(packed, 2, url=url), tmp_path / "copy.tar")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@127.0.0.1:9/1.tar", "http://***@127.0.0.1:9/1.tar"),
        ("http://user:secret@localhost/1.tar", "http://***@localhost/1.tar"),
        ("http://127.0.0.1:9/1.tar?X-Amz-Signature=secret", "http://127.0.0.1:9/1.tar?X-Amz-Signature=***"),
        ("s3:key:secret@bucket/1.tar", "s3:***@bucket/1.tar"),
        ("ftp://key:secret@bucket/1.tar", "ftp://***@bucket/1.tar"),
        ("file://key:secret@bucket/1.tar", "file://***@bucket/1.tar"),
    ],
)
def test_an_error_shows_no_secret_of_the_url(packed, tmp_path, url, shown):
    """User, password and signature of a URL reach no error, and so no Event, Status or log."""
    release = msgspec.structs.replace(release_of(packed, 2), url=url)
    with pytest.raises((FetchError, BundleError)) as refusal:
        fetch(release, tmp_path / "copy.tar")
    assert "secret" not in str(refusal.value)
    assert shown in str(refusal.value)


def test_a_larger_file_is_not_read_to_its_end(packed, tmp_path):
    """The download stops soon after the released size."""
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(50 << 20)
    with pytest.raises(BundleError):
        fetch(release_of(packed, 2, url=big.as_uri(), size_bytes=10), tmp_path / "copy.tar")
    assert (tmp_path / "copy.tar").stat().st_size <= 1 << 20


@pytest.mark.parametrize("kind", ["missing", "refusing", "status", "breaking", "hanging"])
async def test_an_unreachable_source_is_a_transient_error(packed, tmp_path, monkeypatch, kind):
    """A missing file, or a server that refuses, fails, disconnects or hangs."""
    monkeypatch.setattr(bundle_source, "_READ_S", 0.3)
    gone = asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        if kind == "status":
            return web.Response(status=503)
        response = web.StreamResponse(headers={"Content-Length": str(packed.stat().st_size)})
        await response.prepare(request)
        if request.method == "GET":
            await response.write(packed.read_bytes()[:1000])
            if kind == "hanging":
                await gone.wait()
            request.transport.abort()
        return response

    async with web_server(serve) as address:
        url = f"{address}/bundle.tar"
        if kind == "missing":
            url = (tmp_path / "nowhere.tar").as_uri()
        elif kind == "refusing":
            with socket.socket() as unused:
                unused.bind(("127.0.0.1", 0))
                url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        with pytest.raises(FetchError, match="cannot download"):
            await asyncio.to_thread(fetch, release_of(packed, 2, url=url), tmp_path / "copy.tar")
        gone.set()


async def answered(packed, tmp_path, answer, **changes: object) -> None:
    """Fetch from a web server with this answer."""
    async with web_server(answer) as address:
        release = release_of(packed, 2, url=f"{address}/bundle.tar", **changes)
        await asyncio.to_thread(fetch, release, tmp_path / "copy.tar")


@pytest.mark.parametrize("status", [206, 404, 403, 500, 503])
async def test_a_refusal_is_reported_as_what_it_is(packed, tmp_path, status):
    """The sentence has the status of the server, and a partial answer that nobody asked for is none."""

    async def refuse(_) -> web.Response:
        return web.Response(status=status, body=packed.read_bytes())

    with pytest.raises(FetchError, match=f"the server answered {status}"):
        await answered(packed, tmp_path, refuse)


@pytest.mark.parametrize("target", ["/bundle.tar", "/other"])
async def test_a_loop_of_redirects_ends(packed, tmp_path, target):
    """A few requests, and the error has the cause."""
    requests = []

    async def redirect(request: web.Request) -> web.Response:
        requests.append(request.path)
        raise web.HTTPFound("/bundle.tar" if request.path == target else target)

    with pytest.raises(FetchError, match="infinite loop"):
        await answered(packed, tmp_path, redirect)
    assert len(requests) <= 12


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
async def test_a_redirect_leads_to_http_only(packed, tmp_path, target):
    """A server cannot make the edge read a local file."""

    async def redirect(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": target})

    with pytest.raises(FetchError, match="cannot download"):
        await answered(packed, tmp_path, redirect)
    assert not (tmp_path / "copy.tar").exists()


async def test_g3_a_wrong_size_is_known_before_a_byte_is_read(packed, tmp_path):
    """G3: if the server states another size than was released, nothing is downloaded."""
    written = []

    async def large(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(10**12)})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                await response.write(bytes(100_000))
                written.append(100_000)
        return response

    with pytest.raises(BundleError, match=r"got 1000000000000"):
        await answered(packed, tmp_path, large)
    assert sum(written) < 50_000_000


async def test_g3_an_endless_answer_is_cut(packed, tmp_path):
    """G3: an answer without a size and without an end is read up to the released size."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(bytes(100_000))
        return response

    with pytest.raises(BundleError, match="expected"):
        await answered(packed, tmp_path, endless)
    assert (tmp_path / "copy.tar").stat().st_size < packed.stat().st_size + 2_000_000


async def test_a_source_that_drips_is_given_up(packed, tmp_path, monkeypatch):
    """A source below the slowest rate is an error of this attempt, with what arrived."""
    monkeypatch.setattr(bundle_source, "_PROGRESS_S", 0.2)
    async with dripping() as url:
        with pytest.raises(FetchError, match=r"only \d+ bytes arrived in"):
            await asyncio.to_thread(fetch, release_of(packed, 2, url=url), tmp_path / "copy.tar")


async def test_a_newer_release_ends_a_download(packed, tmp_path):
    """A download that was abandoned ends with the next piece."""
    async with dripping() as url:
        with pytest.raises(FetchError, match="a newer release arrived"):
            await asyncio.to_thread(
                fetch, release_of(packed, 2, url=url), tmp_path / "copy.tar", lambda: True
            )


def test_a_full_disk_is_not_blamed_on_the_source(packed, small_disk):
    """The sentence names the file that cannot be written, and what to do."""
    fill(small_disk, leave_bytes=2000)
    with pytest.raises(DiskError, match=r"cannot write .*copy.tar: No space left on device; free space"):
        fetch(release_of(packed, 2), small_disk / "copy.tar")
