"""Frames of the binary protocol, and replies made comparable between two servers."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass

from server import Server

GET, SET, ADD, REPLACE, DELETE, INCREMENT, DECREMENT, QUIT, FLUSH, GETQ, NOOP, VERSION, GETK, GETKQ, APPEND, PREPEND = range(16)
STAT, SETQ, ADDQ, REPLACEQ, DELETEQ, INCREMENTQ, DECREMENTQ, QUITQ, FLUSHQ, APPENDQ, PREPENDQ = range(0x10, 0x1b)
TOUCH, GAT, GATQ, GATK, GATKQ = 0x1c, 0x1d, 0x1e, 0x23, 0x24
LIST_MECHANISMS, AUTH, STEP = 0x20, 0x21, 0x22

#: Ends an exchange; no case uses it.
LAST_OPAQUE = 0xfedcba98


def frame(opcode: int, key: bytes = b"", value: bytes = b"", extras: bytes = b"", cas: int = 0, opaque: int = 0,
          magic: int = 0x80, key_length: int | None = None, body_length: int | None = None) -> bytes:
    """One request; lengths that do not fit can be given."""
    body = extras + key + value
    return struct.pack(
        ">BBHBBHIIQ", magic, opcode, len(key) if key_length is None else key_length, len(extras), 0, 0,
        len(body) if body_length is None else body_length, opaque, cas) + body


def store(opcode: int, key: bytes, value: bytes, flags: int = 0, expiry: int = 0, **more) -> bytes:
    return frame(opcode, key, value, struct.pack(">II", flags, expiry), **more)


def count(opcode: int, key: bytes, delta: int = 1, initial: int = 0, expiry: int = 0, **more) -> bytes:
    return frame(opcode, key, extras=struct.pack(">QQI", delta, initial, expiry), **more)


def timed(opcode: int, key: bytes, expiry: int, **more) -> bytes:
    return frame(opcode, key, extras=struct.pack(">I", expiry), **more)


@dataclass(frozen=True)
class Reply:
    opcode: int
    status: int
    extras: bytes
    key: bytes
    value: bytes
    opaque: int
    cas: int


def replies(data: bytes) -> list[Reply]:
    found, at = [], 0
    while at < len(data):
        assert len(data) - at >= 24, f"half a header: {data[at:]!r}"
        magic, opcode, key, extras, _, status, body, opaque, cas = struct.unpack_from(">BBHBBHIIQ", data, at)
        assert magic == 0x81, f"no reply: {data[at:at + 40]!r}"
        parts = data[at + 24:at + 24 + body]
        assert len(parts) == body, "half a body"
        found.append(Reply(opcode, status, parts[:extras], parts[extras:extras + key], parts[extras + key:], opaque, cas))
        at += 24 + body
    return found


def exchange(server: Server, stream: bytes, timeout: float = 20) -> tuple[list[Reply], bool]:
    """All that is answered to the stream on a connection of its own, and whether the server closed it."""
    pending = memoryview(stream + frame(NOOP, opaque=LAST_OPAQUE))
    last = struct.pack(">BBHBBHIIQ", 0x81, NOOP, 0, 0, 0, 0, 0, LAST_OPAQUE, 0)
    received, closed = bytearray(), False
    deadline = time.monotonic() + timeout
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as connection:
        while not received.endswith(last):
            assert time.monotonic() < deadline, f"no complete reply; until then {bytes(received[-300:])!r}"
            try:
                if pending:
                    connection.setblocking(False)
                    try:
                        pending = pending[connection.send(pending):]
                    except BlockingIOError:
                        pass
                    data = connection.recv(1 << 16)
                else:
                    connection.settimeout(timeout)
                    data = connection.recv(1 << 16)
            except BlockingIOError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                data = b""
            if not data:
                closed = True
                break
            received += data
    if received.endswith(last):
        del received[-len(last):]
    return replies(bytes(received)), closed


class CasNames:
    """Names CAS values by the order in which they first appear, since two servers never count alike."""

    def __init__(self):
        self.names: dict[int, str] = {0: "none"}
        self.latest: dict[int, int] = {}

    def comparable(self, answered: tuple[list[Reply], bool]) -> list[tuple]:
        found = []
        for reply in answered[0]:
            self.latest[reply.opaque] = reply.cas
            name = self.names.setdefault(reply.cas, f"cas-{len(self.names)}")
            value = b"..." if reply.opcode == VERSION and reply.status == 0 else reply.value
            found.append((reply.opcode, reply.status, reply.extras, reply.key, value, reply.opaque, name))
        return found + ([("closed",)] if answered[1] else [])
