"""Rules of cloud/dataset/importing/formats/read_video.py, with real HTTP streams and a real file."""

import itertools
import re
import socket
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cloud.dataset.importing.entry import Item
from cloud.dataset.importing.formats.source import SourceOptions, source_entries
from cloud.dataset.importing.import_result import ImportOptions
from cloud.dataset.importing.importer import import_entries
from cloud.dataset.store import Store
from schemas.errors import PermanentError
from tests.conftest import jpeg
from tests.device.cameras.servers import PASSWORD, USER, camera, stream

FRAMES_PER_S = 10


def frames(source: str, every_s: float = 0.0, most: int = 1000) -> list[str]:
    """Return the names of the sampled frames."""
    with source_entries(source, SourceOptions(label="cat", every_s=every_s, max_frames=most)) as entries:
        assert all(isinstance(entry, Item) and entry.read().startswith(b"\xff\xd8") for entry in entries)
        return [entry.name for entry in entries]


def video(path: Path, seconds: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FRAMES_PER_S, (64, 48))
    for number in range(seconds * FRAMES_PER_S):
        writer.write(np.full((48, 64, 3), number * 7 % 256, np.uint8))
    writer.release()
    return path


def test_a_file_is_sampled_by_its_own_time(tmp_path: Path) -> None:
    """A frame per interval of the video, named by its time, however fast it is read."""
    assert frames(str(video(tmp_path / "cats.avi", 3)), every_s=1.0) == [
        "cats.avi@0.0s", "cats.avi@1.0s", "cats.avi@2.0s",
    ]  # fmt: skip


def test_a_file_that_is_no_video_is_a_sentence(tmp_path: Path) -> None:
    """It says what to try: the file may be cut off, or of a codec that OpenCV does not have."""
    (tmp_path / "cats.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(1000))
    with pytest.raises(PermanentError, match="OpenCV cannot open it; check that a player shows it"):
        frames(str(tmp_path / "cats.mp4"))


def test_a_stream_is_sampled_by_the_clock() -> None:
    """An MJPEG stream has no timestamps: OpenCV counts frames, which are not seconds."""
    with camera(stream()) as server:  # about 100 frames per second, of which OpenCV assumes 25
        names = frames(server.url("/video"), every_s=0.5, most=3)
    times = [float(re.fullmatch(r".*@.*T\d\d:\d\d:([\d.]+)Z", name)[1]) for name in names]  # type: ignore[index]
    assert all((after - before) % 60 > 0.45 for before, after in itertools.pairwise(times))


def test_the_source_of_a_frame_names_the_stream_without_secrets(tmp_path: Path) -> None:
    """The dataset, which others read and export, never contains a camera's password."""
    store = Store.open(tmp_path / "photos.lance")
    with camera(stream(), auth="basic") as server:
        url = server.url("/video?channel=2&pwd=hunter2", login=f"{USER}:{PASSWORD}@")
        with source_entries(url, SourceOptions(label="cat", every_s=0.0, max_frames=2)) as entries:
            assert import_entries(store, entries, ImportOptions()).stored == 2
    sources = {str(row["source"]) for row in store.scan(["source"])}
    beginning = f"http://***@127.0.0.1:{server.server_port}/video?channel=2&pwd=***@20"
    assert len(sources) == 2
    assert all(source.startswith(beginning) for source in sources), sources


@pytest.mark.parametrize("wrong", ["closed", "login", "empty"])
def test_no_error_contains_a_password(wrong: str) -> None:
    """An error names the camera, and neither user, password nor query."""
    with camera(lambda request: request.respond(b""), auth="basic" if wrong == "login" else "") as server:
        url = server.url("/video?pwd=hunter2", login="ada:s3cret-wrong@")
        if wrong == "closed":
            with socket.socket() as unused:
                unused.bind(("127.0.0.1", 0))
                url = f"rtsp://ada:s3cret-wrong@127.0.0.1:{unused.getsockname()[1]}/video?pwd=hunter2"
        with pytest.raises(PermanentError, match=r"cannot import \w+://\*\*\*@127") as raised:
            frames(url)
    assert not re.search("ada|s3cret|hunter2", f"{raised.value} {raised.value.hint}")


def test_a_camera_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening has a limit: a camera that is switched on but hangs does not stop an import forever."""
    monkeypatch.setattr("cloud.dataset.importing.formats.read_video._OPEN_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/video"
        with pytest.raises(PermanentError, match="OpenCV cannot open it; check address"):
            frames(url)


def test_a_stream_that_falls_silent_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sampled before is imported."""
    monkeypatch.setattr("cloud.dataset.importing.formats.read_video._READ_TIMEOUT_S", 0.3)

    def answer(request) -> None:  # type: ignore[no-untyped-def]
        request.begin_stream()
        for number in range(30):  # OpenCV looks at the first ones for the kind of stream
            request.send_part(jpeg(number))
        request.server.closing.wait()

    with camera(answer) as server:
        assert frames(server.url("/video"))


def test_without_opencv_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command installs the extra that a camera over OpenCV needs, too."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "cats.mp4").touch()
    with pytest.raises(PermanentError) as raised:
        frames(str(tmp_path / "cats.mp4"))
    assert re.match(r"pip install .*\[usb\]", raised.value.hint or "")
