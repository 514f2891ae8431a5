import asyncio
import contextlib
import shutil
import socket
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from edge.models import bundle
from edge.models.bundle import BundleError, DiskError, FetchError, check, fetch, read_class_names, unpack
from tests.conftest import fill
from tests.serving import CLASSES, pack, release_of, saved_models, tar_of


@pytest.fixture
def packed(tmp_path):
    return pack(saved_models() / "straight", tmp_path / "bundle.tar")


@contextlib.asynccontextmanager
async def web_server(answer) -> AsyncIterator[str]:
    """Run a web server that answers every path with `answer`; yields its address."""
    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


def test_a_good_bundle_is_unpacked_unchanged(packed, tmp_path):
    """Fetched, unpacked and checked, it is the folder that was packed."""
    release = release_of(packed, 2)
    fetch(release, tmp_path / "copy.tar")
    unpack(tmp_path / "copy.tar", tmp_path / "model", most_bytes=release.size_bytes)
    check(tmp_path / "model", release)
    original = saved_models() / "straight"
    for path in original.rglob("*"):
        placed = tmp_path / "model" / path.relative_to(original)
        assert placed.is_dir() if path.is_dir() else placed.read_bytes() == path.read_bytes()
    assert read_class_names(tmp_path / "model") == CLASSES


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
    """The URL that `as_uri` writes is read back as the same path, whatever bytes are in it."""
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
    monkeypatch.setattr(bundle, "_READ_S", 0.3)
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
    """A few requests, and the sentence says what it was."""
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


@contextlib.asynccontextmanager
async def dripping():
    """A web server that sends a byte every 20 ms; yields its URL."""

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"x")
                await asyncio.sleep(0.02)
        return response

    async with web_server(drip) as address:
        yield f"{address}/bundle.tar"


async def test_a_source_that_drips_is_given_up(packed, tmp_path, monkeypatch):
    """A source below the slowest rate is an error of this attempt, with what arrived."""
    monkeypatch.setattr(bundle, "_PROGRESS_S", 0.2)
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


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


HOSTILE = {
    "up": [("../escaped", b"x")],
    "up inside": [("a/../../escaped", b"x")],
    "absolute": [("/tmp/escaped", b"x")],
    "symbolic link": [(member("link", tarfile.SYMTYPE, "/etc"), b""), ("link/escaped", b"x")],
    "hard link": [(member("link", tarfile.LNKTYPE, "/etc/passwd"), b"")],
    "device file": [(member("null", tarfile.CHRTYPE), b"")],
    "fifo": [(member("pipe", tarfile.FIFOTYPE), b"")],
    "file over folder": [("a/b", b"x"), ("a", b"x")],
    "file as folder": [("a", b"x"), ("a/b", b"x")],
    "no name": [(".", b"x")],
    "long name": [("x" * 300, b"x")],
    "null in name": [("a\0b/../c", b"x"), ("a", b"y"), ("a/b", b"z")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_but_plain_files_below_the_root_is_unpacked(tmp_path, members):
    """A link, a device, a path outside the root or two members with one name make the bundle bad."""
    archive = tar_of(tmp_path / "hostile.tar", members)
    with pytest.raises(BundleError):
        unpack(archive, tmp_path / "below/model", most_bytes=1000)
    assert not list(tmp_path.rglob("escaped"))
    assert not (tmp_path.parent / "escaped").exists()


def header(size_bytes: int, name: str = "liar") -> bytes:
    """Return a tar header that claims a size."""
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "content",
    [
        header(2**60),
        header(-1024),
        header(900) + b"x" * 300,
        b"no tar at all" * 100,
        b"",
        b"".join(header(0, f"f{number}") for number in range(10_001)) + bytes(1024),
    ],
    ids=["vast", "negative", "truncated", "text", "empty", "very many"],
)
def test_a_malformed_archive_is_refused(tmp_path, content):
    """A size that is false, negative or more than released, or too many files."""
    (tmp_path / "liar.tar").write_bytes(content)
    with pytest.raises(BundleError):
        unpack(tmp_path / "liar.tar", tmp_path / "model", most_bytes=1000)


def test_a_sparse_file_cannot_exceed_the_released_size(tmp_path):
    """A small member that expands to a huge file counts with its expanded size."""
    info = tarfile.TarInfo("hole")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,1",
        "GNU.sparse.size": str(2**40),
    }
    with pytest.raises(BundleError, match="no more than the released size"):
        unpack(tar_of(tmp_path / "sparse.tar", [(info, b"x")]), tmp_path / "model", most_bytes=10_000)


def test_a_folder_that_is_not_the_released_model_is_refused(packed, tmp_path):
    """It has no SavedModel, or its own class names differ from the released ones."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"saved_model\.pb"):
        check(tmp_path / "empty", release_of(packed, 2))
    with pytest.raises(BundleError, match="classes"):
        check(saved_models() / "straight", release_of(packed, 2, classes=["dog", "cat"]))


def test_a_model_without_class_names_takes_those_of_its_release(packed, tmp_path):
    """The asset with class names is optional."""
    (tmp_path / "saved_model.pb").write_bytes(b"")
    assert read_class_names(tmp_path) is None
    check(tmp_path, release_of(packed, 2))
