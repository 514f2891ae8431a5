"""A small RTSP server that misbehaves as asked: JPEG over RTP, inside the RTSP connection.

Sources: RFC 2326 (RTSP), RFC 2435 (JPEG in RTP), RFC 2617 (Basic and Digest).
"""

import base64
import contextlib
import hashlib
import io
import re
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator

from PIL import Image

_NONCE = "0a4f113b"
_MTU = 1400
_MEDIA = "m=video 0 RTP/AVP 26\r\na=control:track1\r\n"
_CLOCK_HZ = 90_000
_LEVELS, _STEP = 32, 8


def frame(number: int, size: tuple[int, int]) -> bytes:
    """Return a JPEG whose red and green tell its number, modulo 1024."""
    high, low = divmod(number % (_LEVELS * _LEVELS), _LEVELS)
    out = io.BytesIO()
    Image.new("RGB", size, (_STEP * low, _STEP * high, 128)).save(out, "JPEG", subsampling=2, quality=95)
    return out.getvalue()


def number_of(image: bytes) -> int:
    """Return the number of a frame, modulo 1024."""
    with Image.open(io.BytesIO(image)) as picture:
        red, green, _ = picture.convert("RGB").resize((1, 1), Image.Resampling.BOX).tobytes()
    return round(red / _STEP) + _LEVELS * round(green / _STEP)


class RtspCamera(socketserver.ThreadingTCPServer):
    """An RTSP camera on a port of this machine.

    Args:
        port: 0 for any free one.
        login: User and password; None lets everybody in.
        digest: Asks for Digest instead of Basic.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0, login: tuple[str, str] | None = None, *, digest: bool = False) -> None:
        super().__init__(("127.0.0.1", port), _Session)
        self.login = login
        self.digest = digest
        self.size = (64, 48)
        self.period_s = 0.02
        self.sent = 0
        """Number of the newest frame."""
        self.silent = threading.Event()
        """While it is set, no frame is sent, and the connection stays open."""
        self.cut = threading.Event()
        """Ends each connection in the middle of a frame."""
        self.plays = 0
        """How often a stream was begun."""


@contextlib.contextmanager
def rtsp_camera(
    port: int = 0, login: tuple[str, str] | None = None, *, digest: bool = False
) -> Iterator[RtspCamera]:
    """Run a camera for the duration of a block."""
    server = RtspCamera(port, login, digest=digest)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.cut.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Session(socketserver.StreamRequestHandler):
    server: RtspCamera

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while request := self._request():
                self._answer(*request)

    def _request(self) -> tuple[str, str, dict[str, str]] | None:
        first = self.rfile.readline()
        if not first.strip():
            return None
        method, url, _ = first.decode().split()
        headers = {}
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return method, url, headers

    def _answer(self, method: str, url: str, headers: dict[str, str]) -> None:
        sequence = headers.get("cseq", "0")
        if method != "OPTIONS" and not self._is_allowed(method, headers.get("authorization", "")):
            scheme = (
                f'Digest realm="camera", nonce="{_NONCE}"' if self.server.digest else 'Basic realm="camera"'
            )
            self._reply("401 Unauthorized", sequence, {"WWW-Authenticate": scheme})
            return
        match method:
            case "OPTIONS":
                self._reply("200 OK", sequence, {"Public": "DESCRIBE, SETUP, PLAY, TEARDOWN"})
            case "DESCRIBE":
                body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n" + _MEDIA
                headers = {"Content-Type": "application/sdp", "Content-Base": f"{url}/"}
                self._reply("200 OK", sequence, headers, body)
            case "SETUP":
                transport = {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1", "Session": "1"}
                self._reply("200 OK", sequence, transport)
            case "PLAY":
                self._reply("200 OK", sequence, {"Session": "1"})
                self._play()
            case _:
                self._reply("200 OK", sequence, {"Session": "1"})

    def _is_allowed(self, method: str, authorization: str) -> bool:
        if self.server.login is None:
            return True
        user, password = self.server.login
        if not self.server.digest:
            return authorization == "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        fields = dict(re.findall(r'(\w+)="([^"]*)"', authorization))
        first = hashlib.md5(f"{user}:camera:{password}".encode()).hexdigest()  # of RFC 2617
        second = hashlib.md5(f"{method}:{fields.get('uri')}".encode()).hexdigest()
        wanted = hashlib.md5(f"{first}:{_NONCE}:{second}".encode()).hexdigest()
        return fields.get("response") == wanted

    def _reply(self, status: str, sequence: str, headers: dict[str, str], body: str = "") -> None:
        lines = [
            f"RTSP/1.0 {status}",
            f"CSeq: {sequence}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.wfile.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    def _play(self) -> None:
        server, sequence, began = self.server, 0, time.monotonic()
        server.plays += 1
        while True:
            if server.silent.is_set():
                server.cut.wait(0.01)
            else:
                server.sent += 1
                stamp = int((time.monotonic() - began) * _CLOCK_HZ)
                packets = list(_packets(frame(server.sent, server.size), sequence, stamp))
                sequence += len(packets)
                data = b"".join(b"$\0" + len(one).to_bytes(2) + one for one in packets)
                self.wfile.write(data[: len(data) // 2] if server.cut.is_set() else data)
            if server.cut.is_set():
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            time.sleep(server.period_s)  # the frame rate of the camera


def _packets(jpeg: bytes, sequence: int, stamp: int) -> Iterator[bytes]:
    """Yield a JPEG with the usual Huffman tables as RTP packets."""
    with Image.open(io.BytesIO(jpeg)) as picture:
        width, height = picture.size
    tables, at = b"", 2
    while jpeg[at + 1] != 0xDA:
        length = int.from_bytes(jpeg[at + 2 : at + 4])
        if jpeg[at + 1] == 0xDB:
            segment = jpeg[at + 4 : at + 2 + length]
            tables += b"".join(segment[start + 1 : start + 65] for start in range(0, len(segment), 65))
        at += 2 + length
    scan = jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4]) : -2]
    for number, offset in enumerate(range(0, len(scan), _MTU)):
        part = scan[offset : offset + _MTU]
        is_last = offset + _MTU >= len(scan)
        head = struct.pack(
            ">BBHII", 0x80, 26 | is_last << 7, (sequence + number) & 0xFFFF, stamp & 0xFFFFFFFF, 1
        )
        head += struct.pack(">IBBBB", offset, 1, 255, width // 8, height // 8)
        if not offset:
            head += struct.pack(">BBH", 0, 0, len(tables)) + tables
        yield head + part
