"""The server under test beside a memcached, in the arrangements in which the same commands must have the same replies."""

from __future__ import annotations

from pathlib import Path

import pytest

import server as harness
from differential import Pair, exchange
from server import Server

KIB = 1024


class Arrangement:
    """Both servers, and what has to happen between two commands so that the items are where they should be."""

    def __init__(self, name: str, ours: Server, peer: Server):
        self.name = name
        self.ours = ours
        self.peer = peer
        self.is_cold = name == "cold"

    def fresh_pair(self) -> Pair:
        for server in (self.ours, self.peer):
            with server.connect() as connection:
                assert connection.call(b"flush_all\r\n") == b"OK"
        return Pair(self.ours, self.peer)

    def push_out(self) -> None:
        """Writes three times as much as the RAM tier holds, so that nothing else is left in it."""
        if not self.is_cold:
            return
        value = b"f" * 4000
        count = self.ours.memory * 3 * KIB * KIB // 4000
        filler = b"".join(b"set ~fill%d 0 0 4000 noreply\r\n%s\r\n" % (i, value) for i in range(count))
        exchange(self.ours, filler)

    def run(self, case: str, commands: list[bytes]) -> None:
        """One command at a time, compared with the peer; then all at once, compared with what we said before."""
        pair, said = self.fresh_pair(), []
        for index, command in enumerate(commands):
            said += pair.compare(command, f"{case}, command {index}")
            self.push_out()
        if not harness.is_memcached(self.ours.binary) and not any(b"<cas " in command for command in commands):
            pair = self.fresh_pair()
            again = pair.names[0].comparable(exchange(self.ours, b"".join(commands)))
            assert again == said, f"{case}: as one pipeline it is answered otherwise than one command at a time"

    def end(self) -> None:
        """Ends both servers; fails if ours had ended before."""
        crashed = self.ours.has_crashed()
        self.ours.kill()
        self.peer.kill()
        assert not crashed, self.ours.log[-4000:]


def make_arrangement(name: str, directory: Path, *options: str) -> Arrangement:
    """`ram`: no cold tier; `tiers`: both, with room for all in RAM; `cold`: so little RAM that `push_out` empties it."""
    peer = Server(directory / "peer", *options, binary=harness.PEER, threads=1)
    if name == "ram":
        ours = Server(directory / "ours", *options, cold=False)
    elif name == "tiers":
        ours = Server(directory / "ours", "--cold-limit", "1G", *options)
    else:
        ours = Server(directory / "ours", "--cold-limit", "1G", "--promote-after", "0", *options, memory=2)
    if harness.is_memcached(ours.binary):
        ours.options = list(options)
    return Arrangement(name, ours.start(), peer.start())


ARRANGEMENTS = ["ram", pytest.param("tiers", marks=pytest.mark.cold_tier),
                pytest.param("cold", marks=pytest.mark.cold_tier)]


def put(key: str, value: bytes | str, command: str = "set", flags=0, expiry=0, more: str = "") -> bytes:
    """A storage command of the classic protocol with its value."""
    data = value.encode() if isinstance(value, str) else value
    return f"{command} {key} {flags} {expiry} {len(data)}{more}\r\n".encode() + data + b"\r\n"


def lines(*texts: str) -> list[bytes]:
    return [text.encode() + b"\r\n" for text in texts]


def in_pieces(server: Server, pieces: list[bytes]) -> bytes:
    """Sends the pieces so that a server with one worker has read each before the next is sent; all that it answers."""
    with server.connect() as control, server.connect() as connection:
        assert control.call(b"flush_all\r\n") == b"OK"
        for piece in pieces:
            connection.send(piece)
            assert control.call(b"version\r\n").startswith(b"VERSION")
        connection.send(b"quit\r\n")
        received = bytearray()
        while data := connection.socket.recv(1 << 16):
            received += data
        return bytes(received)
