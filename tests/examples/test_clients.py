import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.broker.debian_package import unpack
from schemas.codec import encode
from schemas.contract.examples import EXAMPLES
from schemas.topics import TOPICS
from tests.conftest import ROOT
from tests.device.conftest import NODE
from tests.nodes import photo

EXAMPLE_FOLDERS = ("arduino", "c", "dataset", "go", "node", "own-model", "python", "shell")
CLIENT_S = 300
HERE = Path(__file__).parent


async def run(*words: object, cwd: Path = ROOT, **environment: str) -> tuple[int, str]:
    """Run a program; return its exit code and its output."""
    process = await asyncio.create_subprocess_exec(
        *map(str, words), cwd=cwd, env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(CLIENT_S):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


def tool(name: str) -> str:
    """Return the path of a program; skip the test without it."""
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


@pytest.fixture
def target(edge, address, tmp_path) -> list[object]:
    """The arguments of each example."""
    file = tmp_path / "cat.jpg"
    file.write_bytes(photo(1, "blue"))
    return ["127.0.0.1", address.port, NODE, "me", file]


@pytest.fixture(scope="session")
def debian(tmp_path_factory) -> Callable[..., Path]:
    """Return a function that unpacks Debian packages into a folder."""
    tool("apt-get")

    def fetch(*packages: str) -> Path:
        folder = tmp_path_factory.mktemp("debian") / "root"
        unpack(packages, folder)
        return folder

    return fetch


def libraries(root: Path) -> str:
    return str(next((root / "usr/lib").glob("*-linux-gnu*")))


def test_every_example_is_in_the_table():
    """The page lists each folder, and each has a client."""
    text = (ROOT / "examples/README.md").read_text()
    folders = {path.name for path in (ROOT / "examples").iterdir() if path.is_dir()}
    assert folders == set(EXAMPLE_FOLDERS)
    assert all(f"`{name}/`" in text for name in EXAMPLE_FOLDERS)


async def test_the_python_client_prints_the_result(target):
    """With paho alone it gets the label of its photo."""
    code, output = await run(sys.executable, ROOT / "examples/python/client.py", *target)
    assert (code, output.split()[0]) == (0, "cat"), output


@pytest.mark.clients
async def test_the_node_client_prints_the_result(target, tmp_path):
    """With the package mqtt it gets the label of its photo."""
    npm, node = tool("npm"), tool("node")
    folder = shutil.copytree(ROOT / "examples/node", tmp_path / "node")
    code, output = await run(npm, "ci", "--silent", cwd=folder)
    assert code == 0, output
    code, output = await run(node, "client.js", *target, cwd=folder)
    assert (code, output.split()[0]) == (0, "cat"), output


@pytest.mark.clients
async def test_the_go_client_prints_the_result(target):
    """With paho for Go it gets the label of its photo."""
    code, output = await run(tool("go"), "run", ".", *target, cwd=ROOT / "examples/go")
    assert (code, output.split()[-2]) == (0, "cat"), output


@pytest.mark.clients
async def test_the_shell_client_prints_the_result(target, debian):
    """With mosquitto_pub and mosquitto_sub it gets the result of its photo."""
    root = debian("mosquitto-clients", "libmosquitto1", "libcjson1")
    path = f"{root}/usr/bin:{os.environ['PATH']}"
    code, output = await run(
        "sh", ROOT / "examples/shell/client.sh", *target, PATH=path, LD_LIBRARY_PATH=libraries(root)
    )
    assert code == 0, output
    assert '"label":"cat"' in output


@pytest.mark.clients
async def test_the_c_client_prints_the_result(target, debian, tmp_path):
    """With libmosquitto it compiles without warnings and gets the result of its photo."""
    root = debian("libmosquitto-dev", "libmosquitto1")
    code, output = await run(
        tool("cc"), "-Wall", "-Wextra", "-Werror", f"-I{root}/usr/include", ROOT / "examples/c/client.c",
        "-o", tmp_path / "client", f"-L{libraries(root)}", "-lmosquitto", "-Wl,--allow-shlib-undefined",
    )  # fmt: skip
    assert code == 0, output
    code, output = await run(tmp_path / "client", *target, LD_LIBRARY_PATH=libraries(root))
    assert code == 0, output
    assert '"label":"cat"' in output


@pytest.mark.clients
async def test_the_schemas_compile_in_go():
    """A validator on RE2 compiles each published schema, and its examples are valid."""
    code, output = await run(tool("go"), "run", ".", ROOT / "schemas/v1", cwd=HERE / "go")
    assert (code, output.splitlines()[-1]) == (0, f"{len(TOPICS)} schemas"), output


@pytest.mark.clients
async def test_the_contract_is_valid_in_node(tmp_path):
    """Ajv accepts schemas, examples and decoded msgpack; AsyncAPI's own parser finds no error or warning."""
    npm, node = tool("npm"), tool("node")
    folder = shutil.copytree(HERE / "node", tmp_path / "node")
    (tmp_path / "examples").mkdir()
    for number, message in enumerate(EXAMPLES):
        topic = next(topic for topic in TOPICS if topic.message is type(message))
        if topic.body == "msgpack":
            (tmp_path / f"examples/{number}-{topic.kind}.msgpack").write_bytes(encode(topic, message))
    code, output = await run(npm, "ci", "--silent", cwd=folder)
    assert code == 0, output
    code, output = await run(node, "check.js", ROOT / "schemas/v1", tmp_path / "examples", cwd=folder)
    assert code == 0, output
    assert f"{len(TOPICS)} schemas, {len(TOPICS)} channels" in output


@pytest.mark.clients
async def test_code_is_generated_from_the_contract(tmp_path):
    """AsyncAPI's generator makes types for Go, Python and TypeScript that compile; each has a name."""
    npm, node, go = tool("npm"), tool("node"), tool("go")
    folder, out = shutil.copytree(HERE / "models", tmp_path / "models"), tmp_path / "out"
    code, output = await run(npm, "ci", "--silent", cwd=folder)
    assert code == 0, output
    code, output = await run(node, "generate.js", ROOT / "schemas/v1/asyncapi.json", out, cwd=folder)
    assert code == 0, output
    names = {line.split()[0]: set(line.split()[1:]) for line in output.splitlines()}
    assert names.keys() == {"go", "python", "typescript"}
    wanted = {topic.message.__name__ for topic in TOPICS}
    for language, generated in names.items():
        # TypeScript has own types Event and Status, so the generator calls ours ReservedEvent.
        assert wanted <= {name.removeprefix("Reserved") for name in generated}, language
        assert not {name for name in generated if name.startswith("Anonymous")}, language
    compiler = folder / "node_modules/.bin/tsc"
    files = sorted((out / "typescript").glob("*.ts"))
    code, output = await run(compiler, "--noEmit", "--strict", "--module", "nodenext", *files)
    assert code == 0, output
    (out / "go/go.mod").write_text("module messages\n\ngo 1.21\n")
    code, output = await run(go, "vet", "./...", cwd=out / "go")
    assert code == 0, output
    for path in (out / "python").glob("*.py"):
        compile(path.read_text(), path, "exec")
