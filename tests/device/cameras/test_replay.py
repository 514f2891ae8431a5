import asyncio
import itertools
import os

import pytest
import structlog

from device.cameras.base import CameraError
from device.cameras.replay import folder_camera, photo_files
from tests.conftest import DEADLINE_S
from tests.device.conftest import frames


@pytest.fixture
def folder(tmp_path):
    """Nine photos of three classes, and files that a camera must skip."""
    for label in ("cat", "cow", "dog"):
        (tmp_path / label).mkdir()
        for number in range(3):
            (tmp_path / label / f"{number}.jpg").write_bytes(f"{label} {number}".encode())
    (tmp_path / "cat" / "notes.txt").write_bytes(b"no photo")
    (tmp_path / "cat" / ".hidden.jpg").write_bytes(b"no photo")
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "4.jpg").write_bytes(b"no photo")
    return tmp_path


def images(taken):
    return [frame.image.decode() for frame in taken]


async def test_a_folder_is_replayed_in_order_and_byte_for_byte(folder):
    """Each photo is taken once, sorted by path; its path is the source; other files are skipped."""
    taken = await frames(folder_camera(folder))
    assert images(taken) == [f"{label} {number}" for label in ("cat", "cow", "dog") for number in range(3)]
    assert [frame.source for frame in taken] == [str(path) for path in photo_files(folder)]


async def test_the_folder_is_the_label_if_there_are_several(folder):
    """Photos in several folders are labelled by their folder; photos in a single folder have no label."""
    assert [frame.label for frame in await frames(folder_camera(folder))][::3] == ["cat", "cow", "dog"]
    assert {frame.label for frame in await frames(folder_camera(folder / "cat"))} == {None}


async def test_a_seed_shuffles(folder):
    """The same seed gives the same order, another seed a different one, and no photo is missing."""
    one, again, two = [images(await frames(folder_camera(folder, shuffle=seed))) for seed in (1, 1, 2)]
    assert one == again
    assert one != two
    assert sorted(one) == sorted(two) == images(await frames(folder_camera(folder)))


async def test_a_loop_starts_again(folder):
    """With `loop` the photos repeat in the same order without end."""
    taken = images(await frames(folder_camera(folder, loop=True), most=20))
    assert taken[:9] == taken[9:18]
    assert taken[18:] == taken[:2]


@pytest.mark.parametrize("shuffle", [None, 5])
async def test_the_parts_of_a_folder_cover_it_once(folder, shuffle):
    """Agents that share a folder take every photo exactly once."""
    parts = [
        images(await frames(folder_camera(folder, shuffle=shuffle, part=(index, 4)))) for index in range(4)
    ]
    assert sorted(itertools.chain(*parts)) == sorted(images(await frames(folder_camera(folder))))
    assert [len(part) for part in parts] == [3, 2, 2, 2]


async def test_a_file_that_cannot_be_used_is_skipped_with_a_warning(folder):
    """An empty file and a broken link are skipped and logged; the other photos are taken."""
    (folder / "cat" / "1.jpg").write_bytes(b"")
    (folder / "cat" / "5.jpg").symlink_to("nowhere")
    with structlog.testing.capture_logs() as logs:
        taken = images(await frames(folder_camera(folder)))
    assert len(taken) == 8
    assert "cat 1" not in taken
    assert [entry["reason"] for entry in logs] == ["empty file", "No such file or directory"]


async def test_what_is_no_file_is_skipped(folder):
    """A FIFO has no end: the agent would wait for it forever. So is a file that is too large."""
    os.mkfifo(folder / "cat" / "1.5.jpg")
    with (folder / "cat" / "1.6.jpg").open("wb") as file:
        file.truncate(1 << 30)
    with structlog.testing.capture_logs() as logs:
        async with asyncio.timeout(DEADLINE_S):
            assert len(await frames(folder_camera(folder))) == 9
    assert [entry["reason"] for entry in logs] == ["not a regular file", f"more than {64 << 20} bytes"]


async def test_a_loop_without_usable_files_ends(tmp_path):
    """A looped folder whose files are all empty is exhausted instead of read forever."""
    (tmp_path / "a.jpg").write_bytes(b"")
    assert await frames(folder_camera(tmp_path, loop=True)) == []


async def test_a_part_without_photos_ends_at_once(folder):
    """With more agents than photos some take none, with `loop` or without."""
    assert await frames(folder_camera(folder, part=(9, 10), loop=True)) == []


async def test_a_missing_or_empty_folder_is_an_error(tmp_path):
    """The error tells apart whether the folder or the photos are missing, and names what is there instead."""
    for name in ("IMG_1.MOV", "sub/IMG_2.MOV", "sub/IMG_3.MP4", "sub/notes.txt"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).write_bytes(b"\0\0\0\x18ftypqt  ")
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("none", "there is no folder .*none; check the path"),
        ("empty", "no photos in .*empty; put some there: JPEG"),
        ("videos", r"no photos in .*videos, only IMG_1\.MOV, IMG_2\.MOV and 2 more; put some there"),
        ("videos/IMG_1.MOV", "IMG_1.MOV is a file; name its folder"),
    ):
        with pytest.raises(CameraError, match=words):
            await frames(folder_camera(tmp_path / name))
