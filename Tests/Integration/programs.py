"""Programs in other languages (`programs/`): each uses a client library of its language and says what came out.

A program is started with HOST:PORT, a protocol, the bytes of a large value and, for TLS, the file of the authority.
Each line that it writes is one of these; of `settle` and `restart` it waits for the answer `done`:

    client NAME VERSION     who it is
    settle                  have every item leave RAM, where that is the arrangement
    restart                 stop the server cleanly and start it on its port and file
    ok NAME                 a test has passed
    not ok NAME: WHY        or not
    end                     it is through
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from places import Place

FOLDER = Path(__file__).with_name("programs")

@dataclass
class Outcome:
    """What a program said."""

    client: str = ""
    version: str = ""
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    settled: int = 0


@dataclass(frozen=True)
class Program:
    """One file in `programs/` and what its language needs.

    `probe`: a command that succeeds where language and library are installed; `packages`: where Debian has them;
    `protocols`: those that the library speaks; `speaks_tls`: whether it does.
    """

    file: str
    command: tuple[str, ...]
    probe: tuple[str, ...]
    packages: tuple[str, ...]
    protocols: tuple[str, ...]
    speaks_tls: bool = False

    @property
    def name(self) -> str:
        return self.file.split(".")[0]

    @property
    def is_installed(self) -> bool:
        return bool(shutil.which(self.probe[0])) and subprocess.run(self.probe, capture_output=True).returncode == 0

    def prepare(self, directory: Path) -> tuple[list[str], dict[str, str]]:
        """The command that runs it, and its environment; what has to be compiled is compiled into the directory."""
        environment = {**os.environ, "GOMEMCACHE_VERSION": debian_version("golang-github-bradfitz-gomemcache-dev")}
        if self.command[0] != "go":
            return [*self.command, str(FOLDER / self.file)], environment
        target = directory / self.name
        subprocess.run(["go", "build", "-o", target, FOLDER / self.file], check=True, timeout=240,
                       env=environment | GO_SETTINGS | {"GOCACHE": str(directory / "cache")})
        return [str(target)], environment


#: Debian has Go's libraries as sources in a place of their own.
GO_PATH = Path("/usr/share/gocode")
GO_SETTINGS = {"GO111MODULE": "off", "GOPATH": str(GO_PATH), "CGO_ENABLED": "0"}

PROGRAMS = [
    Program("memcached.php", ("php",), ("php", "-r", "exit(extension_loaded('memcached') ? 0 : 1);"),
            ("php-cli", "php-memcached"), ("text", "binary")),
    Program("dalli.rb", ("ruby",), ("ruby", "-rdalli", "-e", "0"), ("ruby", "ruby-dalli"), ("binary",), speaks_tls=True),
    Program("cache_memcached_fast.pl", ("perl",), ("perl", "-MCache::Memcached::Fast", "-e", "0"),
            ("perl", "libcache-memcached-fast-perl"), ("text",)),
    Program("gomemcache.go", ("go",), ("test", "-x", "/usr/bin/go", "-a", "-d", str(GO_PATH / "src/github.com/bradfitz/gomemcache")),
            ("golang-go", "golang-github-bradfitz-gomemcache-dev"), ("text",)),
]


def debian_version(package: str) -> str:
    shown = subprocess.run(["dpkg-query", "--show", "--showformat=${Version}", package], capture_output=True, text=True)
    return shown.stdout if shown.returncode == 0 else ""


def run_program(command: list[str], place: Place, protocol: str, authority: str | None = None,
                environment: dict[str, str] | None = None) -> Outcome:
    """Runs it to its end and does what it asks for."""
    arguments = [*command, place.address, protocol, str(place.large)] + ([authority] if authority else [])
    outcome, is_through = Outcome(), False
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            for line in process.stdout:
                word, _, rest = line.rstrip("\n").partition(" ")
                if word in ("settle", "restart"):
                    place.settle() if word == "settle" else place.restart()
                    outcome.settled += word == "settle"
                    process.stdin.write("done\n")
                    process.stdin.flush()
                elif word == "client":
                    outcome.client, _, outcome.version = rest.rpartition(" ")
                elif word == "ok":
                    outcome.passed.append(rest)
                elif word == "not":
                    outcome.failed.append(rest.removeprefix("ok "))
                else:
                    is_through = line == "end\n"
                    assert is_through, f"{command[-1]} wrote {line!r}"
        finally:
            process.kill()
    assert is_through, f"{command[-1]} ended before its end, after {outcome.passed[-1:]}"
    return outcome
