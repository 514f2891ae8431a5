"""Private parts of paho 2.2 and aiomqtt 2.5.1 that a connection needs; a test checks that they exist."""

import asyncio
import fcntl
import socket
import struct
import termios
import threading
from collections.abc import Callable
from typing import Any

import aiomqtt
from paho.mqtt.client import MQTT_LOG_ERR

from bus.mqtt import tls
from bus.mqtt.connection.progress import Traffic

TOO_LARGE = 0x99
"""Reason of a PUBACK for a message that is too large; see `accept_too_large`."""

_PACKET_TOO_LARGE = b"\x95"
_READ_AHEAD_BYTES = 65_536


class Inbox(asyncio.Queue[Any]):
    """Replaces aiomqtt's message queue: passes each message on as it is read from the socket.

    So no second queue grows in this process, and unread messages stay with the broker. The broker's in-flight
    window does not bound it: mosquitto before 2.0.13 ignores the window for a client that publishes.
    """

    def __init__(self, on_message: Callable[[aiomqtt.Message], None], maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._on_message = on_message

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """Pass a message on; an exception that this raises ends the connection."""
        if not self.empty():
            return  # an earlier message failed and the connection ends; the broker redelivers this one
        try:
            self._on_message(item)
        except Exception as error:  # noqa: BLE001  # wait_closed raises it; paho would only log it
            super().put_nowait(error)


class Socket:
    """The socket of one connection: counts its bytes, writes, and stops and continues reading.

    Args:
        client: Not connected yet.
    """

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self._paho: Any = client._client  # noqa: SLF001  # aiomqtt has no API for any of this
        self._written = 0
        self._received = 0
        self._ahead = b""
        self._ahead_from = 0
        self.paused = False
        """Whether reading is stopped."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._waits_for_room = False
        self._count_bytes()
        self._paho.on_socket_open = self._opened
        self._paho.on_socket_register_write = self._has_packets
        self._paho.on_socket_unregister_write = self._has_none

    def pause(self) -> None:
        """Stop reading: the broker's messages stay in its memory and in the buffers of TCP."""
        if not self.paused and (sock := self._paho.socket()) is not None:
            self.paused = True
            self._loop.remove_reader(sock.fileno())

    def resume(self) -> None:
        """Continue reading."""
        if self.paused:
            self.paused = False
            if (sock := self._paho.socket()) is not None and sock.fileno() >= 0:
                self._loop.add_reader(sock.fileno(), self._read)
                # For bytes that were read ahead or decrypted the socket does not become readable.
                self._loop.call_soon(self._read)

    def traffic(self) -> Traffic:
        """Return the bytes acknowledged by the peer and received so far."""
        return Traffic(self._written - self._unacknowledged_bytes(), self._received)

    def end_of_stream(self) -> int:
        """Return the position after all bytes that were given to paho so far."""
        unsent: int = sum(packet["to_process"] for packet in tuple(self._paho._out_packet))  # noqa: SLF001
        return self._written + unsent

    def keep_alive(self) -> None:
        """Keep paho from ending a connection that lives: a PINGRESP comes late behind much data.

        paho still sends a PINGREQ at each keep-alive interval.
        """
        self._paho._ping_t = 0  # noqa: SLF001

    def _opened(self, _client: object, data: object, sock: Any) -> None:
        """Register our reader instead of aiomqtt's; called by paho in the thread that connects."""
        self._client._on_socket_open(self._paho, data, sock)  # noqa: SLF001
        self._loop.call_soon_threadsafe(self._replace_reader, sock)

    def _replace_reader(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0:  # the attempt may have failed already
            self._loop.add_reader(sock.fileno(), self._read)

    def _read(self) -> None:
        """Read packets; aiomqtt's own reader does not stop in the middle of decrypted data."""
        try:
            while not self.paused:
                self._paho.loop_read()
                if (sock := self._paho.socket()) is None:
                    break
                if self._ahead:
                    # In its own callback, as if it came from the socket: others have their turn first.
                    self._loop.call_soon(self._read_on)
                    break
                pending = getattr(sock, "pending", None)
                if pending is None or not pending():
                    break
        except Exception as error:  # noqa: BLE001  # any failure ends the connection
            self._fail(error)

    def _read_on(self) -> None:
        if self._ahead:  # otherwise the socket's own callback read it
            self._read()

    def _has_packets(self, _client: object, _data: object, sock: Any) -> None:
        """Write soon; paho calls this for the first packet that waits, also in the thread that connects.

        aiomqtt wakes its own loop by a socket, waits until this socket is reported writable, as it nearly
        always is, and stops waiting again: three rounds of the loop and eight system calls for each answer.
        """
        if threading.get_ident() == self._thread:
            self._loop.call_soon(self._write, sock)
        else:
            # The first packet of a connection, behind what can be read: a broker that refuses a certificate
            # says so before it closes, and a failed write would not.
            self._loop.call_soon_threadsafe(self._wait_for_room, sock)

    def _has_none(self, _client: object, _data: object, sock: Any) -> None:
        """Stop waiting for room; paho calls this after its last packet, and before it closes the socket."""
        if self._waits_for_room:
            self._waits_for_room = False
            self._loop.remove_writer(sock.fileno())

    def _wait_for_room(self, sock: Any) -> None:
        if self._paho.socket() is sock and not self._waits_for_room:
            self._waits_for_room = True
            self._loop.add_writer(sock.fileno(), self._write, sock)

    def _write(self, sock: Any) -> None:
        """Write what the socket takes, and the rest when it takes more."""
        if self._paho.socket() is not sock:  # closed meanwhile
            return
        try:
            self._paho.loop_write()
            if self._paho.want_write():
                self._wait_for_room(sock)
        except Exception as error:  # noqa: BLE001  # any failure ends the connection
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        disconnected = self._client._disconnected  # noqa: SLF001
        if not disconnected.done():
            disconnected.set_exception(error)

    def _count_bytes(self) -> None:
        send, receive = self._paho._sock_send, self._paho._sock_recv  # noqa: SLF001

        def count_sent(buffer: bytes) -> int:
            sent: int = send(buffer)
            self._written += sent
            return sent

        def receive_ahead(size: int) -> bytes:
            # paho asks for the head of each packet byte by byte.
            if not self._ahead:
                data: bytes = receive(max(size, _READ_AHEAD_BYTES))
                self._received += len(data)
                if len(data) <= size:
                    return data
                self._ahead, self._ahead_from = data, 0
            taken = self._ahead[self._ahead_from : self._ahead_from + size]
            self._ahead_from += len(taken)
            if self._ahead_from == len(self._ahead):
                self._ahead = b""
            return taken

        self._paho._sock_send, self._paho._sock_recv = count_sent, receive_ahead  # noqa: SLF001

    def _unacknowledged_bytes(self) -> int:
        """Return how many sent bytes the kernel keeps for sending again; 0 if it does not report them."""
        sock = self._paho.socket()
        if sock is None or sock.fileno() < 0:
            return 0
        try:
            answer: bytes = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:
            return 0
        return int(struct.unpack("i", answer)[0])


def accept_too_large(paho: Any) -> None:
    """Let `on_publish` see that a message was too large.

    mosquitto answers it with a PUBACK of reason 0x95, which MQTT 5 does not provide for a PUBACK: paho would
    end the connection. 0x99 (payload format invalid) stands for it: no message of ours states a format.
    """
    handle = paho._handle_pubackcomp  # noqa: SLF001

    def translated(kind: str) -> object:
        packet = paho._in_packet["packet"]  # noqa: SLF001
        if kind == "PUBACK" and packet[2:3] == _PACKET_TOO_LARGE:
            packet[2:3] = bytes([TOO_LARGE])
        return handle(kind)

    paho._handle_pubackcomp = translated  # noqa: SLF001


def fail_early_when_refused(client: aiomqtt.Client, closed: Callable[[], None]) -> None:
    """Make connecting fail at once, with the reason, if the connection closes before the CONNACK.

    aiomqtt only logs that, for example for a rejected certificate, and waits until its timeout.

    Args:
        client: Not connected yet.
        closed: Called if the broker closed the connection and gave no reason.
    """
    errors: list[str] = []
    paho, connected, on_disconnect = client._client, client._connected, client._on_disconnect  # noqa: SLF001

    def on_log(_client: object, _userdata: object, level: int, text: str) -> None:
        if level == MQTT_LOG_ERR:
            errors.append(text)

    def fail(*facts: Any) -> None:
        if not connected.done():
            if not errors:
                closed()
            connected.set_exception(aiomqtt.MqttError(tls.explain_refusal(errors[-1] if errors else "")))
        on_disconnect(*facts)

    paho.on_log = on_log
    paho.on_disconnect = fail
