"""Small HTTP servers that behave as network cameras do."""

import base64
import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.conftest import jpeg

USER, PASSWORD = "viewer", "s3cret-w0rd"
_NONCE = "dcd98b7102dd2f0e8b11d0f600bfb0c093"


class Camera(ThreadingHTTPServer):
    """A network camera on a free port of this machine.

    Args:
        answer: Answers a GET request, in its own thread.
        auth: `basic` or `digest`, with `USER` and `PASSWORD`.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[["Request"], None], auth: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answer = answer
        self.auth = auth
        self.paths: list[str] = []
        self.authorizations: list[str] = []
        self.sent: dict[bytes, int] = {}
        """When each picture of a stream was sent last, in milliseconds since 1970."""
        self.closing = threading.Event()

    def url(self, path: str = "/", login: str = "") -> str:
        """Return an address at this camera."""
        return f"http://{login}127.0.0.1:{self.server_port}{path}"


@contextlib.contextmanager
def camera(answer: Callable[["Request"], None], auth: str = "") -> Iterator[Camera]:
    """Run a network camera for the duration of a block."""
    server = Camera(answer, auth)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Request(BaseHTTPRequestHandler):
    """One request; the camera's `answer` writes the response."""

    server: Camera

    def do_GET(self) -> None:
        """Record the request and answer it, or ask for a login."""
        self.server.paths.append(self.path)
        given = self.headers.get("Authorization", "")
        self.server.authorizations.append(given)
        if self.server.auth and not _is_valid(given, self.server.auth):
            challenge = {
                "basic": 'Basic realm="cam"',
                "digest": f'Digest realm="cam", nonce="{_NONCE}", qop="auth"',
            }
            self.respond(b"", "text/html", status=401, challenge=challenge[self.server.auth])
            return
        with contextlib.suppress(OSError):  # the agent has closed the connection
            self.server.answer(self)

    def respond(
        self, body: bytes, kind: str = "image/jpeg", *, status: int = 200, challenge: str = ""
    ) -> None:
        """Send a whole response."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.end_headers()
        self.wfile.write(body)

    def begin_stream(self, boundary: str = "frame") -> None:
        """Send the headers of an MJPEG stream."""
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={boundary}")
        self.end_headers()

    def send_part(self, image: bytes) -> None:
        """Send one picture of a stream."""
        self.server.sent[image] = time.time_ns() // 1_000_000
        head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(image)
        self.wfile.write(head + image + b"\r\n")

    def log_message(self, *_: object) -> None:
        """Be quiet."""


def stream(pause_s: float = 0.01) -> Callable[[Request], None]:
    """Return an answer: numbered pictures, one after the other, until the connection ends."""

    def answer(request: Request) -> None:
        request.begin_stream()
        number = 0
        while not request.server.closing.wait(pause_s):
            request.send_part(jpeg(number))
            number += 1

    return answer


def _is_valid(given: str, auth: str) -> bool:
    if auth == "basic":
        return given == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    fields = dict(re.findall(r'(\w+)="?([^",]+)"?', given.removeprefix("Digest ")))
    if not given.startswith("Digest ") or not {"uri", "nc", "cnonce", "response"} <= set(fields):
        return False
    first, second = _md5(f"{USER}:cam:{PASSWORD}"), _md5(f"GET:{fields['uri']}")
    text = f"{first}:{_NONCE}:{fields['nc']}:{fields['cnonce']}:auth:{second}"
    return fields["response"] == _md5(text)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
