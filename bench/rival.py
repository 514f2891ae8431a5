"""Alternatives to the pipeline: the same model in the process of an HTTP server."""

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path

import aiohttp
from msgspec import Struct, json

from bench.load import Request, RequestFailedError
from bench.machine import ROOT
from bench.setting import CACHE
from bench.stack import program
from bus.broker.process import free_port

_START_S = 120.0
_CONSTRAINTS = ROOT / "constraints/bench.txt"


class Rival(Struct, frozen=True):
    """An alternative server.

    Args:
        name: Name in the document.
        command: Program in `bin/` of its environment, with arguments; `{port}` is replaced by the port.
        body: Returns the request body of a photo.
    """

    name: str
    command: tuple[str, ...]
    body: Callable[[bytes], "bytes | aiohttp.FormData"]
    content_type: str | None = None


def _form(photo: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("photo", photo, filename="photo.jpg", content_type="image/jpeg")
    return form


def _base64(photo: bytes) -> bytes:
    return json.encode({"photos": [base64.b64encode(photo).decode()]})


def _uvicorn(module: str) -> tuple[str, ...]:
    return "uvicorn", f"bench.rivals.{module}:app", "--port", "{port}", "--log-level", "warning"


RIVALS = (
    Rival("FastAPI", _uvicorn("fastapi_service"), bytes, "image/jpeg"),
    Rival("LitServe", ("python", "-m", "bench.rivals.litserve_service", "{port}"), _form),
    Rival(
        "BentoML",
        ("bentoml", "serve", "bench.rivals.bentoml_service:Classify", "--port", "{port}"),
        _base64,
        "application/json",
    ),
    Rival("FastAPI, LiteRT", _uvicorn("fastapi_litert_service"), bytes, "image/jpeg"),
    Rival("queue and process, LiteRT", _uvicorn("queue_service"), bytes, "image/jpeg"),
)


async def rivals_environment() -> Path:
    """Return `bin/` of the rivals' environment; create it if it is missing or has other pins."""
    environment = CACHE / "rivals"
    pins = await asyncio.to_thread(_CONSTRAINTS.read_bytes)
    # The name has the hash of the pins, so that new pins create a new environment.
    ready = environment / f".ready-{sha256(pins).hexdigest()[:12]}"
    if not await asyncio.to_thread(ready.exists):
        python = str(environment / "bin/python")
        pip = (python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--require-hashes")
        for command in (
            ("sh", str(ROOT / "deploy/venv.sh"), "python3", str(environment)),
            (*pip, "-r", str(_CONSTRAINTS)),
        ):
            process = await asyncio.create_subprocess_exec(*command)
            if await process.wait():
                raise RuntimeError(f"{command[0]} failed with exit code {process.returncode}")
        ready.touch()
    return environment / "bin"


@contextlib.asynccontextmanager
async def rival(chosen: Rival, model: Path, folder: Path) -> AsyncIterator[tuple[Request, int]]:
    """Run a rival; yield a function that sends it a photo over persistent connections, and its process id."""
    programs, port = await rivals_environment(), free_port()
    words = [word.format(port=port) for word in chosen.command]
    environment = {
        "MODEL": str(model), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT),
        "BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(folder / "bentoml"),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    address = f"http://127.0.0.1:{port}/predict"
    headers = {} if chosen.content_type is None else {"Content-Type": chosen.content_type}
    async with (
        program((str(programs / words[0]), *words[1:]), environment, folder / f"{chosen.name}.log") as pid,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=120)
        ) as session,
    ):

        async def request(photo: bytes) -> None:
            try:
                async with session.post(address, data=chosen.body(photo), headers=headers) as response:
                    body, status = await response.read(), response.status
            except aiohttp.ClientError as error:  # under too much load it closes connections
                raise RequestFailedError(str(error)) from None
            if status != HTTPStatus.OK:
                raise RequestFailedError(f"{status}: {body[:200]!r}")

        yield request, pid


async def answering(request: Request, photo: bytes) -> None:
    """Wait until a started server answers."""
    async with asyncio.timeout(_START_S):
        while True:
            with contextlib.suppress(RequestFailedError):
                return await request(photo)
            await asyncio.sleep(0.2)
