"""Empty Debian systems in folders, and what this machine lends them: the Swift toolchain, its ways into the network, and
nothing else.

Lent are: name servers, the package sources and settings of apt, certificates that were added to those of Debian, git's
configuration (also folders that it uses in place of addresses), and variables that name proxies or configure pip.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

RELEASE = "bookworm"
#: Where apt of this machine knows no sources of that release.
DEBIAN = "http://deb.debian.org/debian"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LENT_VARIABLES = re.compile(r"(?i:(https?|ftp|all|no)_proxy)|PIP_(?!FIND_LINKS)\w+")


class Failed(Exception):
    """A step did not do what it should; the log has its output."""


def said_by(*words: str) -> str:
    """What a program of this machine writes; nothing if it is not here or fails. Not told by the folder it is called from."""
    try:
        return subprocess.run(words, capture_output=True, text=True, cwd="/").stdout
    except FileNotFoundError:
        return ""


def package_sources() -> list[tuple[str, str]]:
    """Address and suite of each source of Debian's main part for the release, as apt of this machine has them."""
    lines = said_by("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages").splitlines()
    found = {(address.rstrip("/"), suite) for address, suite, component in map(str.split, lines)
             if component == "main" and suite in (RELEASE, f"{RELEASE}-updates", f"{RELEASE}-security")}
    if RELEASE not in {suite for _, suite in found}:
        found = {(DEBIAN, RELEASE)}
    return sorted(found, key=lambda source: (source[1], source[0]))


def git_configuration() -> list[tuple[str, str]]:
    """What git of this machine is told about addresses and how to reach them."""
    entries = [entry.partition("\n") for scope in ("--system", "--global")
               for entry in said_by("git", "config", scope, "--null", "--list").split("\0") if entry]
    return [(name, value) for name, _, value in entries if re.match(r"(url|http)\.", name)]


def lent_folders() -> set[Path]:
    """Folders of this machine from which git takes what addresses name."""
    paths = {Path(re.sub(r"^url\.(file://)?(.*)\.(insteadof|pushinsteadof)$", r"\2", name)) for name, _ in git_configuration()}
    return {path for path in paths if path.is_absolute() and path.is_dir()}


def toolchain() -> Path:
    """The folder with `bin/swift`."""
    swift = shutil.which("swift")
    if not swift:
        raise Failed("there is no swift in PATH")
    return Path(swift).resolve().parents[1]


class Root:
    """One such system. Its mounts are gone with the mount namespace of this program."""

    def __init__(self, folder: Path, log: Path, has_toolchain: bool = False):
        self.folder = folder
        self.log = log
        self.path = SYSTEM_PATH
        for kind, target in (("proc", "proc"), ("sysfs", "sys"), ("tmpfs", "dev/shm"), ("devpts", "dev/pts")):
            self.mount("-t", kind, kind, target=f"/{target}")
        if has_toolchain:
            self.lend(toolchain())
            self.path = f"{toolchain()}/bin:{self.path}"
        for path in lent_folders():
            self.lend(path)

    @classmethod
    def made(cls, folder: Path, log: Path) -> "Root":
        """An empty one, from the packages of Debian."""
        sources = package_sources()
        mirror = next(address for address, suite in sources if suite == RELEASE)
        with log.open("ab") as output:
            done = subprocess.run(["debootstrap", "--variant=minbase", RELEASE, folder, mirror], stdout=output, stderr=output)
        if done.returncode:
            raise Failed("debootstrap")
        etc = folder / "etc"
        (etc / "apt/sources.list").write_text("".join(f"deb {address} {suite} main\n" for address, suite in sources))
        (etc / "apt/apt.conf.d/99lent").write_text(
            "".join(f"{line}\n" for line in said_by("apt-config", "dump").splitlines() if re.match(r"Acquire::(Check-|https?::Proxy|Retries)", line)))
        (etc / "gitconfig").touch()
        for name, value in git_configuration():
            subprocess.run(["git", "config", "--file", etc / "gitconfig", "--add", name, value], check=True, cwd="/")
        shutil.copy("/etc/resolv.conf", etc / "resolv.conf")
        (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        added = folder / "usr/local/share/ca-certificates"
        added.mkdir(parents=True, exist_ok=True)
        for certificate in Path("/usr/local/share/ca-certificates").glob("*.crt"):
            shutil.copy(certificate, added)
        # As in images of Debian for containers: a package starts no service when it is installed.
        policy = folder / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        return cls(folder, log)

    @classmethod
    def copy_of(cls, base: Path, folder: Path, log: Path, has_toolchain: bool = False) -> "Root":
        """A copy of an empty one, on which nothing is mounted."""
        subprocess.run(["cp", "--archive", "--reflink=auto", "--one-file-system", base, folder], check=True)
        return cls(folder, log, has_toolchain)

    def inside(self, path: str | Path) -> Path:
        return self.folder / str(path).lstrip("/")

    def mount(self, *words, target: str | Path) -> None:
        place = self.inside(target)
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", *words, place], check=True)

    def lend(self, path: Path) -> None:
        """A folder of this machine, at the same place and not to be written to."""
        self.mount("--bind", path, target=path)
        self.mount("-o", "remount,bind,ro", target=path)

    def unmount(self) -> None:
        mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for path in sorted((one for one in mounted if one.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "--lazy", path], check=True)

    def words(self, command: list[str], user: str = "0:0", folder: str = "/root", before: list[str] = ()) -> list[str]:
        """The command line that runs a command in here. `before`: what runs it on this machine's side."""
        enter = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', folder]
        return [*before, "chroot", f"--userspec={user}", str(self.folder), *enter, *command]

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        lent = {name: value for name, value in os.environ.items() if LENT_VARIABLES.fullmatch(name)}
        return lent | {"PATH": self.path, "HOME": "/root", "LANG": "C.UTF-8"} | (more or {})

    def run(self, command: str | list[str], timeout: float = 3600, more: dict[str, str] | None = None, **settings) -> str:
        """Runs a command to its end, as root unless said otherwise, and gives what it wrote; it goes to the log as well."""
        words = command if isinstance(command, list) else ["/bin/sh", "-c", command]
        with self.log.open("ab") as output:
            output.write(f"\n$ {words[-1] if words[1:2] == ['-c'] else ' '.join(words)}\n".encode())
            begin = output.tell()
            output.flush()
            process = subprocess.Popen(self.words(words, **settings), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                       env=self.environment(more), start_new_session=True)
            try:
                status = process.wait(timeout)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
        if status:
            raise Failed(f"status {status} of: {' '.join(words)}")
        return self.log.read_bytes()[begin:].decode(errors="replace")


class Service:
    """A program that runs in a root until it is stopped."""

    def __init__(self, root: Root, command: list[str], more: dict[str, str] | None = None, **settings):
        self.root = root
        self.begin = root.log.stat().st_size
        self.output = root.log.open("ab")
        self.process = subprocess.Popen(root.words(command, **settings), stdin=subprocess.DEVNULL, stdout=self.output,
                                        stderr=self.output, env=root.environment(more), start_new_session=True)

    @property
    def said(self) -> str:
        return self.root.log.read_bytes()[self.begin:].decode(errors="replace")

    def wait_until(self, condition, what: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if self.process.poll() is not None:
                raise Failed(f"{what}: ended with status {self.process.returncode}")
            if time.monotonic() > deadline:
                raise Failed(f"{what}: not within {timeout:.0f} s")
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT for all that were started together."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(120)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.output.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
