"""Let the edges of a site fetch one bundle from a mirror at the same moment.

    python -m bench.site_mirror --edges 300 --megabytes 8

The mirror is a separate process, with TLS and certificates of edges; origin and edges are in this one. An
edge here asks as edges do, reads the bundle and compares its digest.
"""

import argparse
import asyncio
import hashlib
import json
import secrets
import ssl
import tempfile
import time
from http import HTTPStatus
from pathlib import Path

import aiohttp
from aiohttp import web

from bench import procfs
from bus.broker.process import free_port, is_listening
from cli.main import main as gleaner
from demo.processes import Processes
from edge.models.transfer.mirror_client import PATH

_POLL_S = 0.05
_START_S = 60.0


class Origin:
    """Serves one bundle, and counts its bytes.

    Args:
        content: Of the bundle.
    """

    def __init__(self, content: bytes) -> None:
        self.sent_bytes = 0
        self._content = content

    async def answer(self, _: web.Request) -> web.Response:
        """Answer with the bundle."""
        self.sent_bytes += len(self._content)
        return web.Response(body=self._content)


async def _fetch(session: aiohttp.ClientSession, mirror: str, asked: dict[str, object]) -> float:
    """Fetch the bundle, and return the seconds that it took."""
    began = time.perf_counter()
    while True:
        async with session.post(mirror + PATH, json=asked) as answer:
            if answer.status == HTTPStatus.OK:
                break
            if answer.status != HTTPStatus.ACCEPTED:
                raise RuntimeError(f"{answer.status}: {await answer.text()}")
    digest = hashlib.sha256()
    async with session.get(f"{mirror}{PATH}/{asked['sha256']}.tar") as answer:
        async for chunk in answer.content.iter_any():
            digest.update(chunk)
    if digest.hexdigest() != asked["sha256"]:
        raise RuntimeError("the bundle is another one")
    return time.perf_counter() - began


async def _run(edges: int, size_bytes: int, folder: Path) -> None:
    content = secrets.token_bytes(size_bytes)
    origin, port = Origin(content), free_port()
    app = web.Application()
    app.router.add_get("/{name}", origin.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    own, edge = folder / "site/mirrors/127.0.0.1", folder / "site/edges/edge-1"
    tls = ssl.create_default_context(cafile=edge / "ca.pem")
    tls.load_cert_chain(edge / "edge.pem", edge / "edge.key")
    words = ["--origin", url, "--listen", f"127.0.0.1:{port}", "--state-dir", str(folder / "state")]
    names = {"certificate": "mirror.pem", "key": "mirror.key", "clients": "ca.pem", "crl": "revoked.crl"}
    words += [f"--{option}={own / name}" for option, name in names.items()]
    asked: dict[str, object] = {
        "url": f"{url}/1.tar", "sha256": hashlib.sha256(content).hexdigest(), "size_bytes": size_bytes,
    }  # fmt: skip
    async with Processes(folder / "logs") as processes:
        await processes.start("mirror", "mirror", *words)
        pid = processes.pid("mirror")
        async with asyncio.timeout(_START_S):
            while not is_listening(port):  # noqa: ASYNC110  # of another process
                await asyncio.sleep(_POLL_S)
        connector = aiohttp.TCPConnector(ssl=tls, limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            used, began = procfs.cpu_s(pid), time.perf_counter()
            mirror = f"https://127.0.0.1:{port}"
            took = sorted(await asyncio.gather(*(_fetch(session, mirror, asked) for _ in range(edges))))
        facts = {
            "edges": edges,
            "bundle_bytes": size_bytes,
            "from_origin_bytes": origin.sent_bytes,
            "all_s": round(time.perf_counter() - began, 1),
            "median_s": round(took[len(took) // 2], 1),
            "mirror_cpu_s": round(procfs.cpu_s(pid) - used, 1),
            "mirror_mb": round(procfs.resident_bytes(pid) / 1e6),
        }
        print(json.dumps(facts))
    await runner.cleanup()


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.site_mirror", description=__doc__)
    parser.add_argument("--edges", type=int, default=300)
    parser.add_argument("--megabytes", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gleaner-site-mirror-") as name:
        folder = Path(name)
        gleaner(
            [
                "provision",
                str(folder / "site"),
                "--cloud",
                "cloud",
                "--edge",
                "edge-1",
                "--mirror",
                "127.0.0.1",
            ]
        )
        asyncio.run(_run(arguments.edges, arguments.megabytes * 1_000_000, folder))


if __name__ == "__main__":
    main()
