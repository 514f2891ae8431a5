import itertools

import pytest
import structlog

from device.cameras.base import CameraError, CameraExhausted
from device.cameras.replay import drawn_camera, folder_camera, photo_files
from device.cameras.synthetic import CLASSES, LOOKS


@pytest.fixture
def folder(tmp_path):
    """Nine photos of three classes; among them what a camera has to leave out."""
    for label in ("cat", "cow", "dog"):
        (tmp_path / label).mkdir()
        for number in range(3):
            (tmp_path / label / f"{number}.jpg").write_bytes(f"{label} {number}".encode())
    (tmp_path / "cat" / "notes.txt").write_bytes(b"no photo")
    (tmp_path / "cat" / ".hidden.jpg").write_bytes(b"no photo")
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "4.jpg").write_bytes(b"no photo")
    return tmp_path


async def frames(camera, most=1000):
    """Return the frames of a camera until it has no more, at most so many."""
    taken = []
    async with camera:
        while len(taken) < most:
            try:
                taken.append(await camera.capture())
            except CameraExhausted:
                break
    return taken


def images(taken):
    return [frame.image.decode() for frame in taken]


async def test_a_folder_is_replayed_in_order_and_byte_for_byte(folder):
    """Sorted by path, each file once, with its path as source; hidden and other files are left out."""
    taken = await frames(folder_camera(folder))
    assert images(taken) == [f"{label} {number}" for label in ("cat", "cow", "dog") for number in range(3)]
    assert [frame.source for frame in taken] == [str(path) for path in photo_files(folder)]


async def test_the_folder_is_the_label_where_there_are_several(folder):
    """Class folders label their photos; a single folder of photos says nothing of what they show."""
    assert [frame.label for frame in await frames(folder_camera(folder))][::3] == ["cat", "cow", "dog"]
    assert {frame.label for frame in await frames(folder_camera(folder / "cat"))} == {None}


async def test_a_seed_shuffles(folder):
    """The same seed gives the same order, another seed another, and none is missing."""
    one, again, two = [images(await frames(folder_camera(folder, shuffle=seed))) for seed in (1, 1, 2)]
    assert one == again
    assert one != two
    assert sorted(one) == sorted(two) == images(await frames(folder_camera(folder)))


async def test_a_loop_begins_again(folder):
    """Looped, the photos come round in the same order for as long as they are asked for."""
    taken = images(await frames(folder_camera(folder, loop=True), most=20))
    assert taken[:9] == taken[9:18]
    assert taken[18:] == taken[:2]


@pytest.mark.parametrize("shuffle", [None, 5])
async def test_the_parts_of_a_folder_cover_it_once(folder, shuffle):
    """Agents that share a folder take every photo, and none twice."""
    parts = [
        images(await frames(folder_camera(folder, shuffle=shuffle, part=(index, 4)))) for index in range(4)
    ]
    assert sorted(itertools.chain(*parts)) == sorted(images(await frames(folder_camera(folder))))
    assert [len(part) for part in parts] == [3, 2, 2, 2]


async def test_a_file_that_cannot_be_used_is_left_out_with_a_warning(folder):
    """An empty file and one that is gone are skipped and said; the others come."""
    (folder / "cat" / "1.jpg").write_bytes(b"")
    (folder / "cat" / "5.jpg").symlink_to("nowhere")
    with structlog.testing.capture_logs() as logs:
        taken = images(await frames(folder_camera(folder)))
    assert len(taken) == 8
    assert "cat 1" not in taken
    assert [entry["reason"] for entry in logs] == ["it is empty", "No such file or directory"]


async def test_a_loop_over_nothing_usable_ends(tmp_path):
    """A looped folder whose files are all empty is exhausted instead of searched for ever."""
    (tmp_path / "a.jpg").write_bytes(b"")
    assert await frames(folder_camera(tmp_path, loop=True)) == []


async def test_a_part_without_photos_ends_at_once(folder):
    """With more agents than photos some have nothing to do, looped or not."""
    assert await frames(folder_camera(folder, part=(9, 10), loop=True)) == []


async def test_no_folder_and_no_photos_are_said(tmp_path):
    """Opening says whether the folder or the photos are missing."""
    for path, words in ((tmp_path / "none", "expected a folder of photos"), (tmp_path, "got none")):
        with pytest.raises(CameraError, match=words):
            await frames(folder_camera(path))


async def test_the_same_seed_draws_the_same_bytes():
    """A drawn camera is a function of its seed, and its label is what it drew."""
    one, again, other = [await frames(drawn_camera(seed=seed, count=3)) for seed in (4, 4, 5)]
    assert one == again
    assert {frame.image for frame in one}.isdisjoint(frame.image for frame in other)
    assert all(frame.label in CLASSES and frame.label in frame.source for frame in one)


async def test_each_look_draws_the_same_pet_in_another_way():
    """A look changes the picture and not what it shows."""
    taken = [(await frames(drawn_camera(look=look, count=1)))[0] for look in LOOKS]
    assert len({frame.image for frame in taken}) == len(LOOKS) > 1
    assert len({frame.label for frame in taken}) == 1


async def test_a_drawn_camera_ends_at_its_count_or_never():
    """`count` bounds the drawings; without it they go on."""
    assert len(await frames(drawn_camera(count=2))) == 2
    assert len(await frames(drawn_camera(), most=4)) == 4


def test_an_unknown_look_is_refused():
    """The message lists the looks that there are."""
    with pytest.raises(CameraError, match="daylight"):
        drawn_camera(look="noir")
