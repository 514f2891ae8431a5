"""The commands of docs/operations.md, executed as a reader would."""

from pathlib import Path

from bus.outbox.sqlite import Database
from cloud.dataset.store import Store
from tests.doc_blocks import block, execute
from tests.nodes import photo

TABLES = {"notes": ("CREATE TABLE notes (text TEXT)",)}


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
        tmp_path,
        PHOTOS=tmp_path / "photos",
        **places,
    )
    assert code == 0, said
    await remember(edge, "not answered yet")
    code, said = await execute(block("backup"), tmp_path, **places)
    assert code == 0, said
    await execute('rm -rf "$CLOUD" "$EDGE"', tmp_path, **places)
    code, said = await execute(block("restore"), tmp_path, **places)
    assert code == 0, said
    assert "3 cat" in said
    assert Store.open(str(cloud / "dataset.lance"), create=False).version > 0
    assert (cloud / "models/1.tar").read_bytes() == b"a bundle"
    assert await remember(edge) == ["not answered yet"]
