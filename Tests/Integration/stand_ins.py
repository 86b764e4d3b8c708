#!/usr/bin/env python3
"""What `thermocline`, `make` and `systemctl` are while the commands of a document are tested (test_documents.py).

A command that starts a server (`thermocline` with options, `make run`) starts it in the background, in the place of the one
before, and ends when it serves. `systemctl` start, stop, restart and reload act on that server. Of `make` other targets
than run and help are looked up, not made. Everything else is the program itself.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ["HOME"])
PROGRAM = os.environ["PAGE_PROGRAM"]
ROOT = os.environ["PAGE_ROOT"]
STARTED = HOME / ".started.json"
PROCESS = HOME / ".process"
LOG = HOME / "server.log"


def stop() -> None:
    """SIGTERM for all that were started together, and the wait for their end."""
    if not PROCESS.exists():
        return
    group = int(PROCESS.read_text())
    PROCESS.unlink()
    os.killpg(group, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while any(is_running_in(group, entry) for entry in Path("/proc").glob("[0-9]*/stat")) and time.monotonic() < deadline:
        time.sleep(0.01)


def is_running_in(group: int, entry: Path) -> bool:
    """Whether a process belongs to the group and has not ended; it may have, and wait for somebody to notice."""
    try:
        state, _, process_group = entry.read_text().rpartition(") ")[2].split()[:3]
    except OSError:
        return False
    return process_group == str(group) and state != "Z"


def start(command: list[str]) -> int:
    """0 when it serves; if it ends before, what it said and its status."""
    stop()
    STARTED.write_text(json.dumps(command))
    name = f"@thermocline-page-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, LOG.open("wb") as log:
        notified.bind("\0" + name[1:])
        notified.settimeout(0.02)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                   env=os.environ | {"NOTIFY_SOCKET": name})
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                if notified.recv(4096) == b"READY=1":
                    PROCESS.write_text(str(process.pid))
                    return 0
            except TimeoutError:
                pass
            if (status := process.poll()) is not None:
                print(LOG.read_text(), end="")
                return status
    os.killpg(process.pid, signal.SIGKILL)
    print("it does not serve")
    return 1


def thermocline(words: list[str]) -> int:
    starts = not words or words[0] == "serve" or words[0].startswith("-") and words[0] not in ("-h", "--help", "-V", "--version")
    if not starts:
        # A tool ends as a closed output ends it; so not from within this program.
        os.execv(PROGRAM, [PROGRAM, *words])
    status = start([PROGRAM, *words])
    if status == 0:
        print(LOG.read_text(), end="")
    return status


def make(words: list[str]) -> int:
    real = ["/usr/bin/make", "--no-print-directory", "-C", ROOT, "APT=no"]
    if "run" in words:
        own = [f"PORT={os.environ['THERMOCLINE_PORT']}", f"SERVER={PROGRAM}", f"COLD_PATH={os.getcwd()}/var/thermocline.db"]
        # Built it is already: `-o` takes it as done.
        status = start([*real, "-o", "build", *words, *own])
        if status == 0:
            print(LOG.read_text().replace(f"{os.getcwd()}/var/", "var/"), end="")
        return status
    if words == ["help"]:
        return subprocess.run([*real, *words]).returncode
    return subprocess.run([*real, "--dry-run", *words], stdout=subprocess.DEVNULL).returncode


def systemctl(words: list[str]) -> int:
    match words:
        case ["stop", "thermocline"]:
            stop()
        case ["start" | "restart", "thermocline"]:
            return start(json.loads(STARTED.read_text()))
        case ["reload", "thermocline"]:
            os.killpg(int(PROCESS.read_text()), signal.SIGHUP)
        case _:
            print(f"systemctl {' '.join(words)}: not in a test", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit({"thermocline": thermocline, "make": make, "systemctl": systemctl}[Path(sys.argv[0]).name](sys.argv[1:]))
