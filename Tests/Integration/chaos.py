"""Hundreds of connections that mean it ill: random and mutated traffic in all three protocols, from a seed.

A process of its own for each share of the connections, so that the sender is no slower than the server:
`python chaos.py PORT SECURE_PORT SEED SECONDS CONNECTIONS` (SECURE_PORT 0: no TLS). It ends with a JSON object: what was sent.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from pathlib import Path

CORPUS = Path(__file__).resolve().parents[1] / "Fuzz" / "corpus"

#: What an operator may say: it would stop the server, change its limits or its clock, or empty the keys that are checked.
NOT_SENT = (b"shutdown", b"memlimit", b"debugtime", b"flush_all", b"refresh_certs")
BINARY_FLUSH = (0x08, 0x18)

TELLING = [b"\r\n", b"\n", b"\r", b" ", b"\0", b"\x80", b"\x81", b"-1", b"0", b"4294967295", b"18446744073709551615", b"noreply",
           b"get ", b"gets ", b"mg ", b"ms ", b"mn\r\n", b"set a 0 0 ", b"VALUE ", b"END\r\n", b"\xff" * 8, b"A" * 300]

CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(190))


def inputs() -> list[bytes]:
    """What the fuzz targets begin with."""
    files = sorted(path for folder in ("text", "binary") for path in (CORPUS / folder).iterdir())
    return [data for data in (path.read_bytes() for path in files) if is_harmless(data)]


def is_harmless(data: bytes) -> bool:
    """Whether none of it can be one of the commands that are not sent, wherever a parser takes it up."""
    lower = data.lower()
    if any(word in lower for word in NOT_SENT):
        return False
    return not any(data[at] == 0x80 and data[at + 1] in BINARY_FLUSH for at in range(len(data) - 1))


def mutated(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(out) + 1)
        length = rng.randrange(1, 40)
        kind = rng.randrange(6)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at:at] = rng.choice(TELLING)
        elif kind == 2:
            out[at:at] = out[at:at + length]
        elif kind == 3:
            del out[at:at + length]
        elif kind == 4 and at < len(out):
            out[at] = rng.randrange(256)
        else:
            out[at:at + length] = rng.randbytes(length)
    return bytes(out)


def made(rng: random.Random, known: list[bytes]) -> tuple[str, bytes]:
    """One thing to send, and what kind it is."""
    kind = rng.choice(["known", "mutated", "mutated", "mutated", "noise", "pipeline", "huge length", "binary header", "large",
                       "sets", "gets", "cold gets"])
    key = b"chaos:%d" % rng.randrange(2000)
    if kind == "known":
        data = rng.choice(known)
    elif kind == "mutated":
        data = mutated(rng.choice(known), rng)
    elif kind == "noise":
        data = rng.randbytes(rng.choice([1, 20, 300, 5000]))
    elif kind == "pipeline":
        data = b"".join(rng.choice(known) for _ in range(rng.choice([5, 50])))
    elif kind == "huge length":
        length = rng.choice([1 << 20, (1 << 20) + 1, 1 << 31, 1 << 32, 1 << 63, 10**30, -1, -(1 << 63)])
        data = rng.choice([b"set %s 0 0 %d\r\n", b"ms %s %d\r\n", b"append %s 1 1 %d noreply\r\n"]) % (key, length) + b"x" * 200
    elif kind == "binary header":
        data = struct.pack("!BBHBBHIIQ", 0x80, rng.choice([0, 1, 2, 4, 5, 6, 7, 9, 0x0a, 0x0e, 0x1c, 0x1d, 0x20, 0x21, 0xff]),
                           rng.choice([0, 1, 250, 251, 65535]), rng.choice([0, 4, 8, 20, 255]), 0, 0,
                           rng.choice([0, 1, 24, 1000, 1 << 20, (1 << 32) - 1]), 7, 0) + rng.randbytes(rng.randrange(60))
    elif kind == "large":
        length = rng.choice([9000, 70_000, 900_000])
        data = b"set %s 0 0 %d\r\n" % (key, length) + b"l" * length + b"\r\nget %s\r\n" % key
    elif kind == "sets":
        data = b"".join(b"set chaos:%d 0 0 1000 noreply\r\n" % rng.randrange(2000) + b"s" * 1000 + b"\r\n" for _ in range(20))
    elif kind == "gets":
        data = b"get " + b" ".join(b"chaos:%d" % rng.randrange(2000) for _ in range(100)) + b"\r\n"
    else:
        data = b"mg %s v\r\n" % key * 50
    return (kind, data) if is_harmless(data) else ("known", b"mn\r\n")


class Sender:
    def __init__(self, port: int, secure_port: int, seed: int, seconds: float):
        self.port, self.secure_port, self.seed = port, secure_port, seed
        self.until = time.monotonic() + seconds
        self.counts: Counter = Counter()
        self.known = inputs()

    async def connection(self, number: int) -> None:
        rng = random.Random(self.seed * 100_003 + number)
        while time.monotonic() < self.until:
            self.counts["connections"] += 1
            try:
                await asyncio.wait_for(self.converse(rng), timeout=max(5, self.until - time.monotonic() + 1))
            except (OSError, ssl.SSLError, asyncio.TimeoutError, asyncio.IncompleteReadError, EOFError) as ended:
                self.counts[type(ended).__name__] += 1

    async def converse(self, rng: random.Random) -> None:
        how = rng.random()
        secure = self.secure_port and how < 0.15
        context = None
        if secure and how < 0.1:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        reader, writer = await asyncio.open_connection("127.0.0.1", self.secure_port if secure else self.port, ssl=context,
                                                       limit=1 << 16)
        raw: socket.socket = writer.get_extra_info("socket")
        try:
            if secure and not context:
                # A handshake that is cut, changed, or none.
                hello = CLIENT_HELLO if rng.random() < 0.7 else mutated(CLIENT_HELLO, rng)
                writer.write(hello[:rng.randrange(1, len(hello))])
                self.counts["handshakes cut"] += 1
                await asyncio.sleep(rng.choice([0, 0, 0.05]))
                return
            for _ in range(rng.randrange(1, 12)):
                kind, data = made(rng, self.known)
                self.counts[kind] += 1
                self.counts["bytes"] += len(data)
                await self.send(writer, data, rng)
                if rng.random() < 0.5:
                    await self.read(reader, rng)
                if time.monotonic() > self.until:
                    return
            ending = rng.random()
            if ending < 0.2 and not context:
                # Half-open: nothing more comes, but what was asked is still read.
                raw.shutdown(socket.SHUT_WR)
                await self.read(reader, rng)
            elif ending < 0.3:
                self.counts["idle"] += 1
                await asyncio.sleep(rng.uniform(0, 0.5))
        finally:
            if rng.random() < 0.4:
                self.counts["resets"] += 1
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def send(self, writer: asyncio.StreamWriter, data: bytes, rng: random.Random) -> None:
        if rng.random() < 0.5:
            writer.write(data)
        else:
            at = 0
            for _ in range(20):
                step = rng.choice([1, 2, 7, 100, len(data)])
                writer.write(data[at:at + step])
                at += step
                if at >= len(data):
                    break
                # Each piece a segment of its own.
                await asyncio.sleep(0)
            writer.write(data[at:])
        # Who does not read is not waited for either: the server has to see to itself.
        await asyncio.wait_for(writer.drain(), 0.5)

    @staticmethod
    async def read(reader: asyncio.StreamReader, rng: random.Random) -> None:
        try:
            await asyncio.wait_for(reader.read(rng.choice([1, 100, 65536])), 0.05)
        except asyncio.TimeoutError:
            pass

    async def run(self, connections: int) -> None:
        await asyncio.gather(*(self.connection(number) for number in range(connections)))


def main() -> None:
    port, secure_port, seed, seconds, connections = sys.argv[1:]
    sender = Sender(int(port), int(secure_port), int(seed), float(seconds))
    asyncio.run(sender.run(int(connections)))
    print(json.dumps(sender.counts))


if __name__ == "__main__":
    main()
