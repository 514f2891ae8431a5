"""Rules of console/analysis/insights.py: what an open page shows follows the dataset."""

import asyncio
from pathlib import Path

from cloud.dataset.store import Row, Store
from cloud.registry.registry import Registry
from console.analysis import insights
from console.analysis.insights import InsightDesk
from tests.conftest import DEADLINE_S
from tests.nodes import photo, photo_id


def labelled(number: int) -> Row:
    """Return a photo that a person has labelled."""
    said = {"human_label": "cat", "human_by": "ann", "human_at_ms": 1, "origin": "import", "split": "train"}
    image = photo(number, "red", (8, 8))
    return Row(photo_id=photo_id(number), image=image, width=8, height=8, received_at_ms=1, **said)


async def test_a_page_that_stays_open_sees_later_labels(tmp_path: Path, monkeypatch) -> None:
    """A page asks after each computation, finds nothing new, and is notified of labels, however late."""
    monkeypatch.setattr(insights, "_PAUSE_S", 0)
    looked, told = watch_version(monkeypatch), asyncio.Event()
    store = Store.open(tmp_path / "dataset.lance")
    desk = InsightDesk(store, Registry(tmp_path / "models"), tmp_path / "cache", told.set)
    running = asyncio.create_task(desk.run())
    async with asyncio.timeout(DEADLINE_S):
        desk.latest()
        await told.wait()
        for count in (1, 2):
            told.clear()
            looked.clear()
            desk.latest()  # as the open page does when it is notified
            await looked.wait()
            store.upsert([labelled(count)])
            desk.dataset_changed()
            await told.wait()
            shown = desk.latest()
            assert shown is not None
            assert shown.labelled == count
    running.cancel()


def watch_version(monkeypatch) -> asyncio.Event:
    """Return an event that is set whenever the version of a dataset is read."""
    looked, loop, version = asyncio.Event(), asyncio.get_running_loop(), Store.version.fget

    def read(store: Store) -> int:
        loop.call_soon_threadsafe(looked.set)
        return version(store)

    monkeypatch.setattr(Store, "version", property(read))
    return looked
