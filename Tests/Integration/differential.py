"""Sends the same bytes to two servers and makes their replies comparable."""

from __future__ import annotations

import base64
import itertools
import re
import select
import socket
import time

from server import Server, is_memcached

_tokens = itertools.count(1)

#: Stands where a command needs the CAS value that this very server gave the key.
CAS_OF = re.compile(rb"<cas ([^>]*)>")


#: A CAS value that neither server ever gives.
NO_CAS = 7_777_777_777_777_777_777


class Closed(bytes):
    """A reply after which the server closed the connection."""


def exchange(server: Server, stream: bytes, end_of_input: bool = False, timeout: float = 20) -> bytes:
    """Sends `stream` on a new connection and returns all that is answered to it.

    The end of the replies is known by a value that is stored and read after the stream. With `end_of_input` nothing
    follows the stream but its end, and the reply is complete when the server closes.
    """
    token = b"end-of-replies-%d" % next(_tokens)
    tail = b"set ~end 0 0 %d noreply\r\n%s\r\nget ~end\r\n" % (len(token), token)
    last = b"VALUE ~end 0 %d\r\n%s\r\nEND\r\n" % (len(token), token)
    pending = memoryview(stream if end_of_input else stream + tail)
    received = bytearray()
    deadline = time.monotonic() + timeout
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as connection:
        connection.setblocking(False)
        shut = False
        while True:
            if not pending and end_of_input and not shut:
                connection.shutdown(socket.SHUT_WR)
                shut = True
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no complete reply within {timeout} s; until then {bytes(received[-300:])!r}")
            readable, writable, _ = select.select([connection], [connection] if pending else [], [], left)
            try:
                if writable:
                    pending = pending[connection.send(pending):]
                if readable:
                    data = connection.recv(1 << 16)
                    if not data:
                        return Closed(received)
                    received += data
            except (ConnectionResetError, BrokenPipeError):
                return Closed(received)
            if received.endswith(last):
                return bytes(received[:-len(last)])


def value_length(words: list[bytes]) -> int | None:
    """How long the value is that follows this line, if one does."""
    if words[0] == b"VALUE" and len(words) in (4, 5):
        number = words[3]
    elif words[0] == b"VA" and len(words) > 1:
        number = words[1]
    else:
        return None
    return int(number) if number.strip().isdigit() else None


def replies(data: bytes) -> list[tuple]:
    """Lines and values, each as a tuple; what can't be a reply stays as it is."""
    found, at = [], 0
    while at < len(data):
        end = data.find(b"\n", at)
        if end < 0:
            found.append(("rest", data[at:]))
            break
        line = data[at:end + 1]
        at = end + 1
        words = line.split(b" ")
        length = value_length(words)
        if length is not None:
            found.append(("value", line, data[at:at + length + 2]))
            at += length + 2
        else:
            found.append(("line", line))
    return found


class Near:
    """A number of seconds, equal to any other that is not further away than two clocks and a busy machine explain."""

    def __init__(self, seconds: int, tolerance: int):
        self.seconds = seconds
        self.tolerance = tolerance

    def __eq__(self, other) -> bool:
        return isinstance(other, Near) and abs(self.seconds - other.seconds) <= max(self.tolerance, other.tolerance)

    def __repr__(self) -> str:
        return f"about {self.seconds} s"


#: A remaining time differs by the ticks of two clocks; one since the last access also by when each server notes it
#: (memcached notes it once a minute).
TIME_TO_LIVE, LAST_ACCESS = 3, 100


class CasNames:
    """Names CAS values by the order in which they first appear, since two servers never count alike."""

    def __init__(self):
        #: Leaves the difference between a key and its base64 aside, where only memcached forgets it.
        self.decode_keys = False
        self.names: dict[int, int] = {}
        self.latest: dict[bytes, int] = {}

    def comparable(self, data: bytes) -> list[tuple]:
        result = []
        for reply in replies(data):
            words = reply[1].split()
            if reply[1].startswith((b"HD ", b"VA ", b"EN ", b"NS ", b"EX ", b"NF ")):
                reply = (reply[0], self.comparable_flags(reply[1]), *reply[2:])
            elif reply[1].startswith(b"ME ") and len(words) == 8:
                reply = ("line", self.comparable_debug(words))
            elif reply[0] == "value" and len(words) == 5:
                self.latest[words[1]] = int(words[4])
                reply = ("value", b" ".join(words[:4]) + b" " + self.name(int(words[4])), reply[2])
            elif reply[1].startswith(b"VERSION "):
                reply = ("line", b"VERSION ...\r\n")
            result.append(reply)
        if isinstance(data, Closed):
            result.append(("closed",))
        return result

    def name(self, cas: int) -> bytes:
        return b"cas-%d" % self.names.setdefault(cas, len(self.names))

    def comparable_flags(self, line: bytes) -> tuple:
        """The words of a meta reply, its spaces and its end as they are; its CAS and key are remembered together."""
        words, key, cas = line.split(b" "), None, None
        for at, word in enumerate(words[1:], 1):
            number = word[1:].rstrip(b"\r\n")
            end = word[1 + len(number):]
            if word[:1] == b"k":
                key = number
            elif word[:1] == b"c" and number.isdigit():
                cas = int(number)
                words[at] = self.name(cas) + end
            elif word[:1] == b"t" and number.isdigit():
                # memcached gives the time of an item that has just expired as 2^32 less some seconds.
                words[at] = ("t", Near(int(number) if int(number) < 1 << 31 else 0, TIME_TO_LIVE), end)
            elif word[:1] == b"l" and number.isdigit():
                words[at] = ("l", Near(int(number), LAST_ACCESS), end)
        if key is not None and cas is not None:
            self.latest[base64.b64decode(key) if any(word in (b"b", b"b\r\n") for word in words) else key] = cas
        if self.decode_keys and key is not None:
            words = self.with_decoded_key(words)
        return tuple(words)

    @staticmethod
    def with_decoded_key(words: list) -> list:
        """The end of the line goes with a `b` that is left out, so it is left out everywhere."""
        words = [word.rstrip(b"\r\n") if isinstance(word, bytes) else word for word in words]
        if b"b" in words:
            words = [b"k" + base64.b64decode(word[1:]) if isinstance(word, bytes) and word[:1] == b"k" else word for word in words if word != b"b"]
        return words

    def comparable_debug(self, words: list[bytes]) -> tuple:
        """The line of `me`: its class and size say how a server stores, and differ."""
        named = dict(word.split(b"=") for word in words[2:])
        assert named[b"cls"].isdigit() and named[b"size"].isdigit(), words
        expiry = int(named[b"exp"])
        return (*words[:2], *named, expiry if expiry < 0 else Near(expiry, TIME_TO_LIVE),
                Near(int(named[b"la"]), LAST_ACCESS), self.name(int(named[b"cas"])), named[b"fetch"])

    def fill_in(self, stream: bytes) -> bytes:
        """Puts this server's CAS values where the stream asks for them; a key never seen has one that no server gives."""
        return CAS_OF.sub(lambda match: b"%d" % self.latest.get(match[1], NO_CAS), stream)


class Pair:
    """The server under test and the one it is compared with, and what is known of both."""

    def __init__(self, ours: Server, peer: Server):
        self.servers = (ours, peer)
        self.names = (CasNames(), CasNames())

    def ask(self, stream: bytes, **options) -> tuple[list[tuple], list[tuple]]:
        """Sends the stream to both; their replies in comparable form, ours first."""
        ours, peer = (
            names.comparable(exchange(server, names.fill_in(stream), **options))
            for server, names in zip(self.servers, self.names))
        return ours, peer

    def compare(self, stream: bytes, what: str = "", **options) -> list[tuple]:
        """Sends the stream to both and expects equal replies; returns ours in its comparable form."""
        ours, peer = self.ask(stream, **options)
        expect_equal(ours, peer, what, stream)
        return ours

    def compare_pipeline(self, commands: list[bytes], what: str = "") -> None:
        """Sends ours the commands as one pipeline, and the peer the same, but with a pause before incr, decr and ma.

        memcached pads what they leave only if no reply refers to the item any more, which in a pipeline is an accident.
        """
        said = []
        for server, names in zip(self.servers, self.names):
            pieces = [b""]
            for command in [names.fill_in(command) for command in commands]:
                if is_memcached(server.binary) and command.startswith((b"incr", b"decr", b"ma ")):
                    pieces.append(b"")
                pieces[-1] += command
            said.append(names.comparable(b"".join(exchange(server, piece) for piece in pieces if piece)))
        expect_equal(said[0], said[1], what, b"".join(commands))


def expect_equal(ours: list[tuple], peer: list[tuple], what: str, stream: bytes) -> None:
    if ours == peer:
        return
    at = next((i for i, (a, b) in enumerate(zip(ours, peer)) if a != b), min(len(ours), len(peer)))
    raise AssertionError(
        f"{what}: reply {at} differs\n  ours     {brief(ours[at:at + 3])}\n  expected {brief(peer[at:at + 3])}"
        f"\n  before   {brief(peer[max(0, at - 3):at])}\n  sent     {brief(stream)}")


def brief(value) -> str:
    text = repr(value)
    return text if len(text) <= 3000 else text[:1500] + " ... " + text[-1500:]
