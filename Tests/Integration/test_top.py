"""`thermocline top`: in a terminal (tmux's), and as text."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

import server as harness
from places import COLD, wait_for
from server import BINARY, Server

pytestmark = [pytest.mark.cold_tier, pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not here")]


class Terminal:
    """A terminal of tmux's, 80 by 24, with a shell; a server of its own, so that nobody else's is touched."""

    def __init__(self, directory: Path, command: str):
        self.socket = directory / "tmux"
        self.before, self.after = directory / "before", directory / "after"
        script = f"trap : INT; stty -g >{self.before}; echo a line from before; {command}; echo status $?; stty -g >{self.after}.new; mv {self.after}.new {self.after}; sleep 60"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "bash", "-c", script)

    def tmux(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-u", "-S", self.socket, *map(str, words)], capture_output=True, text=True, timeout=20,
                              env=harness.ENVIRONMENT | {"TERM": "screen", "LC_ALL": "C.UTF-8"})
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def lines(self) -> list[str]:
        return self.tmux("capture-pane", "-p").rstrip("\n").split("\n")

    def wait_for_line(self, expression: str) -> str:
        wait_for(lambda: any(re.search(expression, line) for line in self.lines), 15)
        return next(line for line in self.lines if re.search(expression, line))

    def press(self, key: str) -> None:
        self.tmux("send-keys", key)

    def resize(self, width: int, height: int) -> None:
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    def assert_restored(self, status: int = 0) -> None:
        wait_for(self.after.exists)
        assert self.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}").split() == ["0", "1"]
        assert self.after.read_text() == self.before.read_text()
        assert self.lines[:2] == ["a line from before", f"status {status}"]

    def close(self) -> None:
        self.tmux("kill-server")


@pytest.fixture
def terminal(tmp_path):
    opened = []

    def open_terminal(*words) -> Terminal:
        opened.append(Terminal(tmp_path, shlex.join(map(str, [BINARY, "top", *words]))))
        return opened[0]

    yield open_terminal
    for one in opened:
        one.close()


@pytest.fixture
def busy(make_server):
    """A server with a file, and a client that reads from both tiers and writes."""
    server = make_server(*COLD, memory=2).start()
    over = threading.Event()
    reading = threading.Event()

    def use():
        while not over.is_set():
            try:
                with server.connect() as connection:
                    connection.call(b"stats detail on\r\n")
                    for i in range(3000):
                        connection.set(f"page:{i}", b"x" * 1000)
                    while not over.is_set():
                        for i in range(50):
                            connection.get(f"page:{i * 61}")
                        reading.set()
                        connection.get("page:none")
                        connection.set("user:1", b"y")
                        time.sleep(0.01)
            except OSError:
                time.sleep(0.05)

    thread = threading.Thread(target=use)
    thread.start()
    assert reading.wait(30)
    yield server
    over.set()
    thread.join()


@pytest.mark.bounded(120)
def test_a_server_is_shown_and_q_leaves_the_terminal_as_it_was(busy, terminal):
    view = terminal(f"127.0.0.1:{busy.port}", "--interval", "0.3")
    view.wait_for_line(r"^Commands/s +get [1-9]")
    lines = view.lines
    assert re.match(rf"127\.0\.0\.1:{busy.port}  thermocline \d", lines[0])
    assert len(lines) <= 24 and all(len(line) <= 80 for line in lines)
    for expression in (r"^RAM +[\d.,]+ +[\d.]+%", r"^file +[1-9][\d.,]* +[\d.]+% +\d.* [um]s", r"^miss +", r"^RAM +#+\.* .* MiB of 2.0 MiB",
                       r"^file +.* of 1.0 GiB", r"^Flows/s +promotions", r"^page +[1-9]"):
        view.wait_for_line(expression)
    # A smaller window shows less, a larger one more; nothing is left of what was there.
    view.resize(50, 9)
    wait_for(lambda: len(view.lines) <= 9 and not any("Prefix" in line for line in view.lines))
    assert any(line.startswith("Commands/s") for line in view.lines)
    view.resize(120, 40)
    view.wait_for_line(r"^page +[1-9]")
    view.press("q")
    view.assert_restored()


@pytest.mark.bounded(120)
def test_a_restart_of_the_server_is_survived_and_ctrl_c_ends(busy, terminal):
    view = terminal(f"127.0.0.1:{busy.port}", "--interval", "0.2")
    view.wait_for_line(r"^Commands/s +get [1-9]")
    busy.fixed_port = busy.port
    busy.terminate()
    view.wait_for_line(r"^not reachable: .*refused")
    view.wait_for_line(r"^Commands/s")
    busy.start()
    wait_for(lambda: not any(line.startswith("not reachable") for line in view.lines), 15)
    view.wait_for_line(r"^Commands/s +get [1-9]")
    view.press("C-c")
    view.assert_restored()


def top(*words, status: int = 0) -> str:
    done = subprocess.run([BINARY, "top", *map(str, words)], capture_output=True, text=True, timeout=30, env=harness.ENVIRONMENT)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done.stdout if status == 0 or done.stdout else done.stderr


def test_without_a_terminal_it_is_text(busy):
    said = top(f"127.0.0.1:{busy.port}", "--once", "--interval", "0.5")
    assert "\x1b" not in said and re.search(r"^Commands/s +get [1-9]", said, re.MULTILINE) and re.search(r"^file .*%", said, re.MULTILINE)
    twice = top(f"127.0.0.1:{busy.port}", "--count", "2", "--interval", "0.2")
    assert len(re.findall("^Commands/s", twice, re.MULTILINE)) == 2 and "\n\n127.0.0.1" in twice
    # Whoever reads may go.
    done = subprocess.run(f"{BINARY} top 127.0.0.1:{busy.port} --interval 0.1 | head -n 1", shell=True, capture_output=True, text=True, timeout=20)
    assert done.stderr == "" and "thermocline" in done.stdout


def test_a_memcached_is_shown_too(tmp_path):
    server = Server(tmp_path, binary=harness.PEER).start()
    try:
        with server.connect() as connection:
            connection.set("a", b"v")
        said = top(f"127.0.0.1:{server.port}", "--once", "--interval", "0.2")
        assert re.match(r"127.0.0.1:\d+  memcached 1\.", said) and re.search(r"^RAM .* B of 64.0 MiB", said, re.MULTILINE)
        assert "promotions" not in said
    finally:
        server.kill()


def test_what_is_not_there_is_a_failure_of_a_script(tmp_path):
    said = top(f"127.0.0.1:{harness.free_port()}", "--once", "--interval", "0.1", status=1)
    assert "not reachable" in said and "Connection refused" in said
    for words in (["--interval", "0"], ["--count", "0"], ["a:b"]):
        assert "is not allowed" in top(*words, status=78)
