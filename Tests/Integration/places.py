"""Where the items of a client lie: all in RAM, or each of them in the file after every step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from arrangements import Arrangement
from server import Server, free_port

EVERY_BYTE = bytes(range(256))


@dataclass
class Place:
    """A server, and the way to the place where its items are to lie."""

    server: Server
    mover: Arrangement
    #: Where clients connect, if not where the harness does.
    client_port: int | None = None

    @property
    def name(self) -> str:
        return self.mover.name

    @property
    def port(self) -> int:
        return self.client_port or self.server.port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def large(self) -> int:
        """Bytes of a large value that RAM has room for."""
        return 60_000 if self.mover.is_cold else 1_000_000

    def settle(self) -> None:
        """Has everything leave RAM, where that is the arrangement."""
        self.mover.push_out()

    def restart(self) -> None:
        """A clean stop and a start on the same port and file."""
        self.server.terminate()
        self.server.start()

    def cold_reads(self) -> int:
        """Reads that the file answered since the server started."""
        with self.server.connect() as connection:
            return int(connection.statistics("tiers")["cold_hits"])


#: Nothing that was read from the file stays in RAM.
COLD = ("--promote-after", "0")


def open_place(name: str, server: Server) -> Place:
    """`name`: hot or cold; the server of a cold place has the options `COLD` and the least memory, 2 MB."""
    return Place(server, Arrangement(name, server, server))


class SecuredServer(Server):
    """Speaks TLS on a port of its own; the harness talks to the other one in plain text."""

    def __init__(self, directory: Path, certificate: tuple[str, str], *options: str, **settings):
        super().__init__(directory, *options, **settings)
        self.certificate = certificate
        self.secure_port = free_port()

    def arguments(self) -> list[str]:
        words = super().arguments()
        words[words.index("127.0.0.1")] = "notls:127.0.0.1"
        chain, key = self.certificate
        return [*words, "-l", f"127.0.0.1:{self.secure_port}", "-Z", "-o", f"ssl_chain_cert={chain},ssl_key={key}"]


def wait_for(condition, timeout: float = 8) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
