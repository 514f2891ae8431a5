"""Every shell block of the documents is executed by a test, or has a reason why not; cheap ones run here."""

import asyncio
import re
import ssl
from pathlib import Path

from cloud.dataset.store import Row, Store
from schemas.messages import Status
from schemas.topics import STATUS
from tests.conftest import ROOT
from tests.doc_blocks import all_blocks, block, execute
from tests.nodes import Command, Observer, edge_config, photo, photo_id, toml

NOT_RUN = 41
"""Blocks that no test executes, each with the reason. One more needs a reason that a reader accepts."""


def test_every_shell_block_is_executed_or_says_why_not():
    """A mark before the block names its test or the reason, so that nothing rots unseen."""
    unmarked = [one.place for one in all_blocks() if not one.kind]
    assert unmarked == []
    reasons = [f"{one.place}: {one.words}" for one in all_blocks() if one.kind == "not run"]
    assert len(reasons) == NOT_RUN, "\n".join(reasons)


def test_every_name_of_a_block_is_that_of_one_test():
    """A test takes its block by the name, and no two blocks have the same."""
    names = [one.words for one in all_blocks() if one.kind == "tested"]
    assert len(set(names)) == len(names)
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert [name for name in names if not re.search(rf'(block|run)\(\s*"{name}"', sources)] == []


async def run(name: str, home: Path, *changes: tuple[str, str]) -> str:
    """Run a block with what differs here; return its output."""
    text = block(name)
    for old, new in changes:
        assert old in text, f"{name}: {old}"
        text = text.replace(old, new)
    code, said = await execute(text, home)
    assert code == 0, said
    return said


async def test_photos_are_looked_at_corrected_and_removed_as_the_page_says(address, tmp_path):
    """docs/datasets.md, in a fresh home with nine photos; the question is answered, and the broker named."""
    for number in range(8):
        path = tmp_path / "photos" / ("Cat", "cat", "cat", "dog")[number % 4] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number))
    sample = Row(
        photo_id=photo_id(99), image=photo(99), width=90, height=80, node="edge-1", device="pi-1",
        received_at_ms=1,
    )  # fmt: skip
    code, said = await execute("gleaner cloud import photos", tmp_path)
    assert code == 0, said
    store = Store.open(tmp_path / "dataset.lance")
    store.upsert([sample])
    async with Observer(address).watching() as seen:
        status = Status(
            node="edge-1", name="edge", state="offline", at_ms=1, since_ms=1, software="1", run_id="1"
        )
        await seen.bus.publish(STATUS, status, node="edge-1", name="edge")
        said = await run(
            "correct",
            tmp_path,
            ("cat/17.jpg", "cat/1.jpg"),
            ("--before 2026-01-01", f"--before 2026-01-01 --yes --wait 0 --broker 127.0.0.1:{address.port}"),
        )
    assert "1 photos and 0 dead letters forgotten" in said
    assert "not yet by edge-1 (edge is offline)" in said
    assert "forget-at-edges" in said
    assert store.count() == 8


async def test_an_edge_is_checked_started_and_diagnosed_as_the_page_says(address, tmp_path):
    """docs/operations.md: the edge starts in the background, and doctor and status name its missing model."""
    config = edge_config(address, "127.0.0.1:1", tmp_path)
    toml(config, tmp_path / "edge.toml")
    check, edge, *rest = block("start check stop").splitlines()
    assert edge == "gleaner edge --config /etc/gleaner/edge.toml"
    code, said = await execute(check.replace("/etc/gleaner", str(tmp_path)), tmp_path)
    assert code == 0, said
    running = Command(tmp_path, *edge.replace("/etc/gleaner", str(tmp_path)).split()[1:])
    async with Observer(address).watching() as seen:
        running.start()
        try:
            await seen.status("online")
            for line in rest:
                code, said = await execute(line, tmp_path, GLEANER_CONFIG=tmp_path / "edge.toml")
                assert code == 1, said
                assert re.search(r"pets +(is )?absent", said)
                assert "Traceback" not in said
        finally:
            await asyncio.to_thread(running.stop)


async def test_small_blocks_work_in_a_fresh_home(tmp_path):
    """Completion, a certificate for the console, and a site with Home Assistant."""
    await run("completion", tmp_path)
    assert "gleaner" in (tmp_path / ".local/share/bash-completion/completions/gleaner").read_text()
    await run("console certificate", tmp_path)
    ssl.create_default_context().load_verify_locations(tmp_path / "https.pem")
    words = "site --cloud localhost --edge edge-1 --edge-host localhost --devices pi-1"
    code, said = await execute(f"gleaner provision {words}", tmp_path)
    assert code == 0, said
    await run("provision home assistant", tmp_path)
    assert (tmp_path / "site/edges/edge-1/homeassistant.pem").is_file()
