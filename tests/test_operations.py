"""The commands of docs/operations.md, executed as a reader would."""

import asyncio
import os
import re
import sys
from pathlib import Path

from bus.outbox.sqlite import Database
from cloud.dataset.store import Store
from tests.conftest import DEADLINE_S, ROOT
from tests.nodes import photo

_TESTED = re.compile(r"<!-- tested: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)
TABLES = {"notes": ("CREATE TABLE notes (text TEXT)",)}


def blocks() -> dict[str, str]:
    """Return the tested blocks by name."""
    return dict(_TESTED.findall((ROOT / "docs/operations.md").read_text(encoding="utf-8")))


async def execute(block: str, **variables: object) -> tuple[int, str]:
    """Run a block in a shell that has the command on its path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        "sh", "-eu", "-c", block,
        env=os.environ | {"PATH": path} | {name: str(value) for name, value in variables.items()},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE_S):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def remember(folder: Path, text: str | None = None) -> list[str]:
    """Write a text to the state of an edge, if any, and return all that it has."""
    async with Database(folder / "edge.db", TABLES) as database:
        if text is not None:
            await database.run(lambda connection: connection.execute("INSERT INTO notes VALUES (?)", (text,)))
        return await database.run(lambda db: [row[0] for row in db.execute("SELECT text FROM notes")])


async def test_a_backup_restores_dataset_models_and_state(address, tmp_path):
    """After the loss of a cloud machine and an edge, both blocks bring back what they had."""
    cloud, edge, backup = tmp_path / "cloud", tmp_path / "edge", tmp_path / "backup"
    for folder in (cloud / "models", edge, backup, tmp_path / "photos/cat"):
        folder.mkdir(parents=True)
    for number in range(3):
        (tmp_path / f"photos/cat/{number}.jpg").write_bytes(photo(number, "blue"))
    (cloud / "models/1.tar").write_bytes(b"a bundle")
    places = {"CLOUD": cloud, "EDGE": edge, "BACKUP": backup, "BROKER": f"127.0.0.1:{address.port}"}
    code, said = await execute(
        'gleaner cloud import "$PHOTOS" --dataset "$CLOUD/dataset.lance"',
        PHOTOS=tmp_path / "photos",
        **places,
    )
    assert code == 0, said
    await remember(edge, "not answered yet")
    code, said = await execute(blocks()["backup"], **places)
    assert code == 0, said
    await execute('rm -rf "$CLOUD" "$EDGE"', **places)
    code, said = await execute(blocks()["restore"], **places)
    assert code == 0, said
    assert "3 cat" in said
    assert Store.open(str(cloud / "dataset.lance"), create=False).version > 0
    assert (cloud / "models/1.tar").read_bytes() == b"a bundle"
    assert await remember(edge) == ["not answered yet"]
