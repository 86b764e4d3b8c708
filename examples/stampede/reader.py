#!/usr/bin/env python3
"""Reads what takes long to compute, so that one reader computes it and all others never wait together.

Three things make many readers compute the same at once: nobody has computed it yet; it expires under load; it was
invalidated. memcached's meta commands have an answer to each, and so has Thermocline, also for an item that lies in the
file and over a restart:

    mg KEY s v t c N30 R60     N30: of the readers that miss, one wins (W) and gets 30 s to fill; the others learn it (Z)
                               R60: when less than 60 s are left, one reader wins and computes anew; the others have a hit
    md KEY I T60               invalidates: stale (X) for 60 s, one reader wins, the others take the old value meanwhile
    ms KEY LENGTH T600 C7 I    fills, if nothing has changed since the reader won: else the value is stale at once

Needs Python 3.9 and nothing else. As a program it shows how often a value is computed by many threads:

    ./reader.py 127.0.0.1:11211 --threads 50
"""

from __future__ import annotations

import argparse
import socket
import threading
import time
from dataclasses import dataclass


@dataclass
class Reading:
    """The answer to `mg`. `value`: None while it is being filled for the first time."""

    value: bytes | None
    cas: int
    #: This reader won and is to compute the value.
    has_won: bool
    #: The value is from before an invalidation.
    is_stale: bool


class Cache:
    """One connection; not for several threads."""

    def __init__(self, host: str, port: int, timeout: float = 5):
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.socket.makefile("rb")

    def close(self) -> None:
        self.input.close()
        self.socket.close()

    def read(self, key: str, lease: int, early: int) -> Reading:
        """`lease`: seconds in which the winner has to fill; `early`: seconds before expiry when one computes anew."""
        words = self.ask(f"mg {key} s v t c N{lease} R{early}\r\n".encode())
        if words[0] != b"VA":
            raise ConnectionError(f"the cache said {words!r}")
        value = self.input.read(int(words[1]) + 2)[:-2]
        flags = {word[:1]: word[1:] for word in words[2:]}
        has_won, is_being_filled = b"W" in flags, b"Z" in flags
        # What `mg` itself has made (it then says W, or Z to those after) is empty until it is filled.
        is_there = value != b"" or not (has_won or is_being_filled)
        return Reading(value if is_there else None, int(flags[b"c"]), has_won, b"X" in flags)

    def fill(self, key: str, value: bytes, ttl: int, cas: int) -> None:
        """With I: a value that was computed from what has been invalidated meanwhile is stored as a stale one."""
        self.ask(f"ms {key} {len(value)} T{ttl} C{cas} I\r\n".encode() + value + b"\r\n")

    def invalidate(self, key: str, grace: int) -> None:
        """`grace`: seconds in which the old value may still be served, until it has been computed anew."""
        self.ask(f"md {key} I T{grace}\r\n".encode())

    def ask(self, command: bytes) -> list[bytes]:
        self.socket.sendall(command)
        line = self.input.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the cache has closed the connection")
        return line.split()


def fetch(cache: Cache, key: str, compute, ttl: int = 600, early: int = 60, lease: int = 30, patience: float = 10) -> bytes:
    """The value, computed by this reader only if it is the one that shall.

    `lease`: longer than `compute` takes; if the winner dies, another wins when it is over. `patience`: seconds to wait for
    another's first value before computing it nevertheless; `ttl`, `early`: seconds.
    """
    deadline, pause = time.monotonic() + patience, 0.005
    while True:
        reading = cache.read(key, lease, early)
        if reading.has_won:
            value = compute()
            cache.fill(key, value, ttl, reading.cas)
            return value
        if reading.value is not None:
            return reading.value
        if time.monotonic() > deadline:
            return compute()
        time.sleep(pause)
        pause = min(pause * 2, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description="Many threads read one value that takes a second to compute.")
    parser.add_argument("address", nargs="?", default="127.0.0.1:11211")
    parser.add_argument("--threads", type=int, default=50)
    options = parser.parse_args()
    host, port = options.address.rsplit(":", 1)
    computations: list[float] = []

    def compute() -> bytes:
        computations.append(time.time())
        time.sleep(1)
        return b"computed at %f" % time.time()

    def everybody_reads() -> tuple[set[bytes], float]:
        found, slowest = [], []

        def read() -> None:
            cache = Cache(host, int(port))
            begin = time.monotonic()
            found.append(fetch(cache, "stampede", compute))
            slowest.append(time.monotonic() - begin)
            cache.close()

        threads = [threading.Thread(target=read) for _ in range(options.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == options.threads, "a reader has failed"
        return set(found), sorted(slowest)[-2]

    control = Cache(host, int(port))
    control.ask(b"md stampede\r\n")
    for title in ("nothing there", "a hit", "invalidated"):
        if title == "invalidated":
            control.invalidate("stampede", 60)
        del computations[:]
        found, wait = everybody_reads()
        print(f"{title}: {options.threads} readers, computed {len(computations)} times, {len(found)} different values, "
              f"all but one within {wait:.2f} s")


if __name__ == "__main__":
    main()
