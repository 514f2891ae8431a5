"""A node fetches only the parts of a bundle that it lacks, or all of it, and places the released bytes."""

import asyncio
import hashlib
import random
import shutil
import signal
import sys
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from cloud.export.part_lists import write_part_lists
from edge.models import version_dirs
from edge.models.transfer.bundle_source import DiskError, FetchError, Traffic
from edge.models.transfer.installed_parts import NAME
from schemas.messages import Release
from schemas.parts import MAX_PART_BYTES, Part, decode_part_list, encode_part_list
from tests.conftest import ROOT, fill
from tests.file_server import FileServer, web_server
from tests.serving import pack, release_of, saved_models

WEIGHTS_BYTES = 2_000_000
MOST_BYTES = 100_000
LATER = 1_000_000  # where version 2 has other weights


def published(folder: Path, version: int, *, kind: str, weights: bytes) -> Release:
    """Publish a bundle of a real SavedModel with more weights, and the lists of its parts."""
    model = folder / f"model-{version}"
    shutil.copytree(saved_models() / kind, model)
    (model / "assets.extra").mkdir(exist_ok=True)
    (model / "assets.extra/weights").write_bytes(weights)
    bundle = pack(model, folder / f"{version}.tar")
    release = release_of(bundle, version)
    return msgspec.structs.replace(release, parts=write_part_lists(bundle, release.sha256))


@pytest.fixture
def shop(tmp_path) -> Path:
    """The folder of the file server."""
    (tmp_path / "shop").mkdir()
    return tmp_path / "shop"


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> tuple[Path, list[Release]]:
    """Versions 1 and 2: another graph, and 10 kB in the middle of the weights are others."""
    folder, weights = tmp_path_factory.mktemp("packed"), random.Random(0).randbytes(WEIGHTS_BYTES)
    changed = weights[:LATER] + random.Random(1).randbytes(10_000) + weights[LATER + 9_990 :]
    return folder, [
        published(folder, 1, kind="straight", weights=weights),
        published(folder, 2, kind="swapped", weights=changed),
    ]


@pytest.fixture
def releases(shop, packed) -> list[Release]:
    """Versions 1 and 2, as `packed` has them, in the file server's folder, where a test may change them."""
    folder, versions = packed
    shutil.copytree(folder, shop, dirs_exist_ok=True)
    return [msgspec.structs.replace(one, url=(shop / f"{one.version}.tar").as_uri()) for one in versions]


@pytest.fixture
def base(tmp_path) -> Path:
    """The model's folder of a node."""
    return tmp_path / "pets"


@pytest.fixture
def server(shop) -> FileServer:
    """The file server."""
    return FileServer(shop)


async def download(release: Release, base: Path, answer, **changes: object) -> Traffic:
    """Download a release from a server with this answer; returns what it cost."""
    traffic = Traffic()
    async with web_server(answer) as address:
        at_server = msgspec.structs.replace(release, url=f"{address}/{release.version}.tar", **changes)
        await asyncio.to_thread(version_dirs.download, at_server, base, traffic=traffic)
    return traffic


async def install(release: Release, base: Path, server: FileServer) -> None:
    """Bring a version into service on a node."""
    await download(release, base, server.answer)
    version_dirs.activate(release.version, base, unproven_sha256=None)
    server.requests.clear()
    server.sent_bytes = 0


def is_placed(release: Release, base: Path, shop: Path) -> bool:
    """Return True if the fetched version has exactly the files that were packed."""
    model, placed = shop / f"model-{release.version}", base / f"incoming-{release.version}"
    names = {path.relative_to(model) for path in model.rglob("*") if path.is_file()}
    ours = {Path(".manifest"), Path(NAME)}
    found = {path.relative_to(placed) for path in placed.rglob("*") if path.is_file()} - ours
    return found == names and all((placed / n).read_bytes() == (model / n).read_bytes() for n in names)


async def test_only_what_the_node_lacks_is_fetched(releases, base, shop, server):
    """Of another version, the parts that an installed version has are copied from its files."""
    first, second = releases
    await install(first, base, server)
    traffic = await download(second, base, server.answer)
    assert is_placed(second, base, shop)
    assert traffic.fetched_bytes == server.sent_bytes < MOST_BYTES
    assert traffic.reused_bytes > WEIGHTS_BYTES
    assert len(server.requests) < 40
    assert not (base / "incoming-2.tar").exists()


async def test_any_version_that_shares_parts_helps(releases, base, shop, server):
    """Parts are found by content: a node that skipped versions, or goes back, fetches as little."""
    first, second = releases
    weights = (shop / "model-1/assets.extra/weights").read_bytes()
    seventh = published(shop, 7, kind="straight", weights=weights[:500_000] + b"inserted" + weights[500_000:])
    await install(first, base, server)
    await download(seventh, base, server.answer)
    assert is_placed(seventh, base, shop)
    assert server.sent_bytes < MOST_BYTES
    version_dirs.activate(7, base, unproven_sha256=None)
    shutil.rmtree(base / "1")
    assert (await download(second, base, server.answer)).fetched_bytes < MOST_BYTES
    assert is_placed(second, base, shop)


async def test_a_node_without_parts_fetches_each_byte_once(releases, base, shop, server):
    """The first release costs the bundle and its lists."""
    first, _ = releases
    await download(first, base, server.answer)
    assert is_placed(first, base, shop)
    lists = sum((shop / f"1.tar{suffix}").stat().st_size for suffix in (".parts", ".parts.parts"))
    assert server.sent_bytes <= first.size_bytes + lists


@pytest.mark.parametrize("kind", ["file", "old release"])
async def test_other_sources_and_releases_work(releases, base, shop, server, kind):
    """A release without lists asks for none; a file has ranges too."""
    first, second = releases
    await install(first, base, server)
    if kind == "file":
        traffic = Traffic()
        version_dirs.download(second, base, traffic=traffic)
        assert traffic.fetched_bytes < MOST_BYTES
    else:
        await download(second, base, server.answer, parts=None)
        assert server.requests == [("2.tar", None)]
        assert not (base / "incoming-2" / NAME).exists()
    assert is_placed(second, base, shop)


async def test_an_interrupted_download_is_resumed(releases, base, shop, server):
    """After a broken connection no part is fetched twice, also after a restart of the edge."""
    first, _ = releases
    server.limit_bytes = 1_000_000
    with pytest.raises(FetchError, match="the connection broke"):
        await download(first, base, server.answer)
    assert not version_dirs.is_fetched(1, base)
    server.limit_bytes = None
    traffic = await download(first, base, server.answer)
    assert is_placed(first, base, shop)
    assert traffic.reused_bytes > 900_000
    assert server.sent_bytes < first.size_bytes + MOST_BYTES + MAX_PART_BYTES


async def test_a_server_that_fails_is_asked_again_later(releases, base, server):
    """A status of 500 and above does not make the edge fetch the whole bundle."""
    statuses = []

    async def fail(_: web.Request) -> web.Response:
        statuses.append(503)
        return web.Response(status=503)

    with pytest.raises(FetchError, match="the server answered 503"):
        await download(releases[0], base, fail)
    assert len(statuses) == 1


async def test_a_full_disk_is_not_blamed_on_the_source(releases, small_disk, server):
    """The sentence names the file, and what was written is removed."""
    fill(small_disk, leave_bytes=1_000_000)
    with pytest.raises(
        DiskError, match=r"cannot write .*incoming-1.tar: No space left on device; free space"
    ):
        await download(releases[0], small_disk / "pets", server.answer)
    assert list((small_disk / "pets").iterdir()) == []


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "description"])
async def test_a_damaged_local_part_costs_only_bytes(releases, base, shop, server, damage):
    """What is wrong on the node's disk is fetched instead, and the version is the released one."""
    first, second = releases
    await install(first, base, server)
    weights = base / "1/assets.extra/weights"
    if damage == "flipped":
        content = bytearray(weights.read_bytes())
        content[5000] ^= 1
        weights.write_bytes(content)
    elif damage == "truncated":
        with weights.open("r+b") as file:
            file.truncate(WEIGHTS_BYTES - 3000)
    elif damage == "missing":
        weights.unlink()
    else:
        (base / "1" / NAME).write_bytes(b"\x93damaged")
    traffic = await download(second, base, server.answer)
    assert is_placed(second, base, shop)
    most = MOST_BYTES + 2 * MAX_PART_BYTES if damage in ("flipped", "truncated") else second.size_bytes * 1.1
    assert traffic.fetched_bytes < most


def shorten(shop: Path) -> None:
    (shop / "2.tar").write_bytes((shop / "2.tar").read_bytes()[:-20_000])


MISSING = {
    "lists": lambda shop: (shop / "2.tar.parts.parts").unlink(),
    "list": lambda shop: (shop / "2.tar.parts").unlink(),
    "other lists": lambda shop: shutil.copy(shop / "1.tar.parts.parts", shop / "2.tar.parts.parts"),
    "other list": lambda shop: shutil.copy(shop / "1.tar.parts", shop / "2.tar.parts"),
}


@pytest.mark.parametrize("change", MISSING.values(), ids=MISSING.keys())
async def test_without_usable_lists_the_bundle_is_fetched_whole(releases, base, shop, server, change):
    """Lists that are missing, or not those of the release, cost one line in the log."""
    first, second = releases
    await install(first, base, server)
    change(shop)
    with capture_logs() as logs:
        traffic = await download(second, base, server.answer)
    assert is_placed(second, base, shop)
    assert [entry["event"] for entry in logs] == ["release.parts_unusable"]
    assert traffic.reused_bytes == 0
    assert server.requests[-1] == ("2.tar", None)


@pytest.mark.parametrize("kind", ["no ranges", "no part", "other part", "short"])
async def test_without_usable_parts_the_bundle_is_fetched_whole(releases, base, shop, server, kind):
    """A server that gives no ranges, refuses one, or gives other or fewer bytes than listed."""
    first, second = releases
    await install(first, base, server)

    async def answer(request: web.Request) -> web.StreamResponse:
        if "Range" not in request.headers or request.match_info["name"] != "2.tar":
            return await server.answer(request)
        body = (shop / "2.tar").read_bytes()[request.http_range]
        return {
            "no ranges": web.Response(body=(shop / "2.tar").read_bytes()),
            "no part": web.Response(status=416),
            "other part": web.Response(status=206, body=bytes(len(body))),
            "short": web.Response(status=206, body=body[:-1]),
        }[kind]

    with capture_logs() as logs:
        await download(second, base, answer)
    assert is_placed(second, base, shop)
    assert [entry["event"] for entry in logs] == ["release.parts_unusable"]


def relist(shop: Path, encoded: bytes) -> str:
    """Publish another list for version 2, with a list of its parts; returns the digest for the release."""
    (shop / "2.tar.parts").write_bytes(encoded)
    pieces = [encoded[start : start + MAX_PART_BYTES] for start in range(0, len(encoded), MAX_PART_BYTES)]
    parts = [Part(hashlib.blake2b(piece, digest_size=16).digest(), 0, len(piece)) for piece in pieces]
    top = encode_part_list(hashlib.sha256(encoded).hexdigest(), len(encoded), parts)
    (shop / "2.tar.parts.parts").write_bytes(top)
    return hashlib.sha256(top).hexdigest()


def hostile(kind: str, release: Release, shop: Path) -> bytes:
    """Return a list of parts for a release that is wrong in one respect."""
    good = list(decode_part_list((shop / "2.tar.parts").read_bytes()).parts())
    sha256, size = release.sha256, release.size_bytes
    stranger = Part(bytes(16), 0, 100)
    # A request for each part would overload node and server.
    ones = [Part(number.to_bytes(16, "big"), 0, 128) for number in range(size // 256)]
    mixed = [one for number in ones for one in (number, good[0]._replace(size_bytes=128))]
    rest = size - 128 * len(mixed)
    lists: dict[str, tuple[str, int, list[Part]]] = {
        "other digests": (sha256, size, [part._replace(digest=bytes(16)) for part in good]),
        "order": (sha256, size, good[::-1]),
        "sizes": (sha256, size, [part._replace(size_bytes=part.size_bytes + 1) for part in good]),
        "empty parts": (sha256, size, [stranger._replace(size_bytes=0), *good]),
        "larger": (sha256, size + 100, [*good, stranger]),
        "of another": ("0" * 64, size, good),
        "scattered": (sha256, size, [*mixed, *([stranger._replace(size_bytes=rest)] if rest else [])]),
    }
    return b"\xc1" * 1000 if kind == "garbage" else encode_part_list(*lists[kind])


@pytest.mark.parametrize(
    "kind",
    ["garbage", "other digests", "order", "sizes", "empty parts", "larger", "of another", "scattered"],
)
async def test_a_hostile_list_is_refused(releases, base, shop, server, kind):
    """A list that the release names, but that is wrong, leads to the whole bundle, and to nothing else."""
    first, second = releases
    await install(first, base, server)
    parts = relist(shop, hostile(kind, second, shop))
    with capture_logs() as logs:
        traffic = await download(second, base, server.answer, parts=parts)
    assert is_placed(second, base, shop)
    assert [entry["event"] for entry in logs] == ["release.parts_unusable"]
    assert traffic.fetched_bytes < 2.5 * second.size_bytes
    assert len(server.requests) < 1100
    assert {path.name for path in base.iterdir()} == {"1", "incoming-2"}


async def test_g3_a_long_list_is_not_read_to_its_end(releases, base, shop, server):
    """G3: neither list can fill the memory of a node."""
    first, second = releases
    await install(first, base, server)
    (shop / "2.tar.parts.parts").write_bytes(bytes(50_000_000))
    await download(second, base, server.answer)
    assert is_placed(second, base, shop)
    assert server.sent_bytes < second.size_bytes + 20_000_000
    server.sent_bytes = 0
    vast = encode_part_list("0" * 64, 8192 * 8000, [Part(bytes(16), 0, 8192)] * 8000)
    (shop / "2.tar.parts.parts").write_bytes(vast)
    await download(second, base, server.answer, parts=hashlib.sha256(vast).hexdigest())
    assert server.sent_bytes < second.size_bytes + len(vast) + 10_000


async def test_a_bundle_cannot_bring_its_own_description(base, shop, server):
    """A file of that name inside a bundle would make the node read other files as parts."""
    model = shop / "model-3"
    shutil.copytree(saved_models() / "straight", model)
    (model / NAME).write_bytes(b"of the bundle")
    release = release_of(pack(model, shop / "3.tar"), 3)
    await download(release, base, server.answer)
    assert not (base / "incoming-3" / NAME).exists()


_DOWNLOAD = """
import sys
from pathlib import Path

import msgspec

from edge.models import version_dirs
from schemas.messages import Release

version_dirs.download(msgspec.json.decode(sys.argv[1], type=Release), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("killed_at", range(1, 8))
async def test_g6_a_kill_at_any_request_leaves_the_old_version(releases, base, shop, server, killed_at):
    """G6: the version in place is untouched, and the next download reuses the parts that arrived."""
    first, second = releases
    await install(first, base, server)
    before = {path: path.read_bytes() for path in (base / "1").rglob("*") if path.is_file()}
    reached = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if len(server.requests) + 1 >= killed_at and not process.returncode:
            reached.set()
            await process.wait()
            return web.Response(status=503)
        return await server.answer(request)

    async with web_server(answer) as address:
        at_server = msgspec.structs.replace(second, url=f"{address}/2.tar")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _DOWNLOAD, msgspec.json.encode(at_server).decode(), str(base), cwd=ROOT
        )
        await asyncio.wait(
            [asyncio.ensure_future(reached.wait()), asyncio.ensure_future(process.wait())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()
    assert version_dirs.newest(base) == 1
    assert {path: path.read_bytes() for path in (base / "1").rglob("*") if path.is_file()} == before
    await download(second, base, server.answer)
    assert is_placed(second, base, shop)
