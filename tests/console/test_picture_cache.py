"""Rules of console/photos/picture_cache.py: thumbnails are made once, bounded, and go with their photo."""

import io

import pytest
from PIL import Image

from cloud.dataset.store import Store
from console.photos import picture_cache
from console.photos.picture_cache import PictureCache, forgotten, taken_out
from tests.console.conftest import sample


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A dataset with a few photos."""
    store = Store.open(tmp_path_factory.mktemp("pictures") / "dataset.lance")
    store.upsert([sample(100 + number) for number in range(4)])
    return store


def ids(store) -> list[str]:
    return sorted(str(row["photo_id"]) for row in store.scan(["photo_id"]))


def opened(store, folder, max_bytes: int = 10_000_000) -> PictureCache:
    cache = PictureCache(store, folder, max_bytes)
    cache.open()
    return cache


def test_a_thumbnail_is_made_once(store, tmp_path):
    """The second request, also of a later run, reads the file that the first one made."""
    photo = ids(store)[0]
    made = opened(store, tmp_path).get(photo, 320)
    assert made is not None
    assert max(Image.open(io.BytesIO(made)).size) == 320
    (file,) = tmp_path.glob("*/*.jpg")
    file.write_bytes(b"from the disk")
    assert opened(store, tmp_path).get(photo, 320) == b"from the disk"


def test_a_photo_is_not_enlarged(store, tmp_path):
    """The large size of a small photo has the photo's own size."""
    made = opened(store, tmp_path).get(ids(store)[0], 1024)
    assert max(Image.open(io.BytesIO(made)).size) == 320


@pytest.mark.parametrize(("photo", "size"), [("0" * 32, 320), (None, 4096)])
def test_what_does_not_exist_is_none(store, tmp_path, photo, size):
    """An unknown photo or size makes no file."""
    assert opened(store, tmp_path).get(photo or ids(store)[0], size) is None
    assert list(tmp_path.glob("*/*")) == []


def test_the_cache_is_bounded(store, tmp_path):
    """Beyond the bound, the thumbnails that were not asked for longest are removed."""
    first, *others = ids(store)
    size = len(opened(store, tmp_path / "measure").get(first, 320) or b"")
    cache = opened(store, tmp_path / "small", int(size * 2.5))
    for photo in (first, *others):
        cache.get(photo, 320)
    assert first not in cache.kept()
    assert others[-1] in cache.kept()
    files = list((tmp_path / "small").glob("*/*.jpg"))
    assert sum(file.stat().st_size for file in files) <= size * 2.5


def test_a_photo_that_is_taken_out_while_its_thumbnail_is_made_leaves_none(store, tmp_path, monkeypatch):
    """There was no file to remove when it was taken out, so the thread that makes it checks again."""
    photo, cache = ids(store)[2], opened(store, tmp_path)

    def slow(image: bytes, size: tuple[int, int]) -> bytes:
        store.change([photo], lambda row: row | {"image": None, "forgotten_at_ms": 1})
        return image

    monkeypatch.setattr(picture_cache, "encoded_thumbnail", slow)
    assert cache.get(photo, 320) is None
    assert list(tmp_path.glob("*/*.jpg")) == []
    assert taken_out(store, {photo, "0" * 32}) == [photo]  # the other one never came


def test_a_forgotten_photo_leaves_no_thumbnail(store, tmp_path):
    """An event names what `gleaner cloud forget` removed, and its files are deleted."""
    photo = ids(store)[-1]
    cache = opened(store, tmp_path)
    cache.get(photo, 320)
    assert forgotten(store, cache.kept()) == []
    store.change([photo], lambda row: row | {"image": None, "forgotten_at_ms": 1})
    gone = forgotten(store, cache.kept())
    assert gone == [photo]
    cache.forget(gone)
    assert list(tmp_path.glob("*/*.jpg")) == []
    assert cache.get(photo, 320) is None
