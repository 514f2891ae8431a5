"""The README's "Use it" is followed to the letter in a fresh home, and ends with version 2 in service."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.broker.process import free_port
from cloud.dataset.store import Store
from cloud.registry.registry import Registry
from demo.synthetic.collection import draw_collection
from schemas.codec import content_id
from tests.cli.test_label_session import Terminal
from tests.conftest import DEADLINE_S, ROOT, eventually
from tests.doc_blocks import block

pytestmark = pytest.mark.slow

NOISE = re.compile(r"^(?:INFO|WARNING|[IWE]\d{4} |fully_quantize|Instructions).*", re.MULTILINE)
"""What TensorFlow prints for its own developers."""
PHOTOS = 45
"""With those of the first version fewer labels than let a training try further networks."""


def use_it() -> list[str]:
    """Return the command lines of the section, without comments."""
    lines = (block("use it") + block("close the loop")).splitlines()
    return [line.partition(" #")[0].strip() for line in lines if line.strip()]


class Shell:
    """Runs the lines as a reader would; only ports, folders and the camera's interval differ.

    Args:
        home: Fresh home and working folder.
        photos: Labelled photos.
        new: Photos without labels.
    """

    def __init__(self, home: Path, photos: Path, new: Path) -> None:
        self.home, self._photos, self._new = home, photos, new
        self.port, self._serving = free_port(), free_port()
        cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))  # a downloaded mosquitto
        path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
        self.env = {"HOME": str(home), "PATH": path, "XDG_CACHE_HOME": cache, "PWD": str(home)}
        self._background: list[subprocess.Popen[bytes]] = []

    def here(self, line: str) -> str:
        """Return a line of the README for this machine."""
        line = line.replace("folder:NEW", f"folder:{self._new} --interval 0.05")
        line = re.sub(r"\bDIR\b", str(self._photos), line).replace("--port 8500", f"--port {self._serving}")
        if line.startswith("gleaner broker"):
            return line.replace("broker", f"broker --port {self.port}")
        if re.match("gleaner (edge|device|cloud (collect|release|review))", line):
            background = line.endswith("&")
            line = f"{line.removesuffix('&').strip()} --broker 127.0.0.1:{self.port}"
            if line.startswith("gleaner edge"):
                line += f" --serving 127.0.0.1:{self._serving}"
            return f"{line} &" if background else line
        return line

    def run(self, line: str) -> str:
        """Run a line to its end, or start it if it ends with `&`."""
        command = self.here(line)
        if command.endswith("&"):
            log = (self.home / f"{len(self._background)}.log").open("wb")
            with log:
                started = subprocess.Popen(
                    ["bash", "-c", f"exec {command.removesuffix('&')}"],
                    cwd=self.home,
                    env=self.env,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            self._background.append(started)
            return ""
        words = ["bash", "-c", command]
        done = subprocess.run(
            words, check=False, cwd=self.home, env=self.env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr} {self.logs()}"
        assert not NOISE.findall(done.stderr), done.stderr
        return done.stdout

    def logs(self) -> str:
        """Return the ends of the logs of what runs in the background."""
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.home.glob("*.log")))

    def stop(self) -> None:
        """Stop what runs in the background, the last one first."""
        for process in reversed(self._background):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self._background):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture
def drawn(tmp_path: Path) -> tuple[Path, Path, dict[str, str]]:
    """Labelled photos, new ones in one folder, and the class of each new one by its content."""
    counts = {"train": 12, "gold": 100, "stream": PHOTOS}
    for _ in draw_collection(tmp_path / "drawn", counts=counts):
        pass
    new, truth = tmp_path / "new", {}
    new.mkdir()
    for path in sorted((tmp_path / "drawn" / "stream").glob("*/*.jpg")):
        shutil.copy(path, new / path.name)
        truth[content_id(path.read_bytes())] = path.parent.name
    shutil.rmtree(tmp_path / "drawn" / "stream")
    return tmp_path / "drawn", new, truth


@pytest.fixture
def shell(tmp_path: Path, drawn: tuple[Path, Path, dict[str, str]]) -> Iterator[Shell]:
    home = tmp_path / "home"
    home.mkdir()
    shell = Shell(home, drawn[0], drawn[1])
    yield shell
    shell.stop()


async def review(shell: Shell, line: str, truth: dict[str, str]) -> None:
    """Label every photo that waits, one key each, as in `line`."""
    listed = shell.run(f"gleaner cloud review --json --limit {PHOTOS}").splitlines()
    store = Store.open(shell.home / "dataset.lance", create=False)
    ids = [json.loads(one)["photo_id"] for one in listed]
    images = store.find(ids, ["image"])
    keys = [truth[content_id(images[photo_id]["image"])][0] for photo_id in ids]  # type: ignore[arg-type]
    words = shell.here(line).split()[4:]
    dataset = ("--dataset", store.table.url)
    async with Terminal() as terminal, asyncio.timeout(DEADLINE_S):
        process = await terminal.start(*words, "--limit", PHOTOS, *dataset)
        for number, key in enumerate(keys, start=1):
            await terminal.shows(f"{number} of {len(keys)} ")
            terminal.shown = ""
            terminal.press(key)
        await terminal.shows("no more photos")
        terminal.press("q")
        await terminal.shows(f"{len(keys)} labels published")
        await terminal.shows(f"{len(keys)}: recorded")
        assert await process.wait() == 0


async def test_the_loop_of_the_readme_closes(shell: Shell, drawn: tuple[Path, Path, dict[str, str]]) -> None:
    """Import, train, serve, harvest, review, train again, release: version 2 is promoted and served."""
    lines, truth = use_it(), drawn[2]
    assert "--hold-out 20%" in lines[1]
    store_path = shell.home / "dataset.lance"

    def samples() -> int:
        return Store.open(store_path).count("origin = 'sample'")

    for line in lines:
        if "review" in line:
            # The camera's photos are answered; their samples follow within moments.
            await eventually(lambda: samples() >= PHOTOS * 0.8)
            await review(shell, line, truth)
        else:
            await asyncio.to_thread(shell.run, line)
    cards = Registry(shell.home / "models").cards()
    assert [card.version for card in cards] == [1, 2]
    assert cards[1].verdict is not None
    assert cards[1].verdict.decision == "promote"
    photo = next(drawn[1].iterdir())
    served = shell.run(f"gleaner send {photo} --json --broker 127.0.0.1:{shell.port}")
    assert json.loads(served.splitlines()[0])["model_version"] == 2
