"""What a service manager expects: it is told when the server serves, and passes sockets that outlive a restart."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time

import pytest

import server as harness
from server import Connection


class Notifications:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, directory, abstract: bool):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.name = f"@thermocline-test-{os.getpid()}" if abstract else str(directory / "notify")
        self.socket.bind("\0" + self.name[1:] if abstract else self.name)
        self.socket.settimeout(20)

    def next(self) -> bytes:
        return self.socket.recv(4096)


def start(directory, *options: str, sockets=(), names: str = "", environment: dict | None = None) -> subprocess.Popen:
    """Starts a server with sockets as its descriptors from 3 on, as a service manager does."""
    passed = {f"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": names} if sockets else {}
    copies = [os.dup(one.fileno()) for one in sockets]
    high = [os.dup2(copy, 100 + i, inheritable=True) for i, copy in enumerate(copies)]
    move = "".join(f"exec {3 + i}<&{fd} {fd}<&-; " for i, fd in enumerate(high))
    pid = "LISTEN_PID=$$ " if sockets else ""
    command = ["bash", "-c", f"{move}{pid}exec \"$0\" \"$@\"", str(harness.BINARY), "-l", "127.0.0.1", "-p",
               str(harness.free_port()), "--cold-path", str(directory / "cold.db"), *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=(directory / "stderr.log").open("ab"),
                               env=harness.ENVIRONMENT | passed | (environment or {}), pass_fds=high)
    for fd in (*copies, *high):
        os.close(fd)
    return process


@pytest.fixture
def processes():
    started: list[subprocess.Popen] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.cold_tier
@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract name"])
def test_it_says_when_it_serves_and_when_it_stops(tmp_path, processes, abstract):
    manager = Notifications(tmp_path, abstract)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        processes.append(start(tmp_path, sockets=[listening], environment={"NOTIFY_SOCKET": manager.name}))
        assert manager.next() == b"READY=1"
        with Connection(listening.getsockname()[1]) as connection:
            assert connection.call(b"version\r\n").startswith(b"VERSION")
        processes[0].send_signal(signal.SIGTERM)
        assert manager.next() == b"STOPPING=1"
        assert processes[0].wait(20) == 0


@pytest.mark.cold_tier
def test_no_connection_is_refused_while_it_is_restarted(tmp_path, processes):
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        port = listening.getsockname()[1]
        processes.append(start(tmp_path, sockets=[listening]))
        with Connection(port) as connection:
            connection.set("kept", b"value")
        refused, served = [], 0
        stop = threading.Event()

        def knock():
            nonlocal served
            while not stop.is_set():
                try:
                    with Connection(port, 20) as connection:
                        # A connection that was accepted just before the end is closed with it; none is refused.
                        if connection.get("kept") == b"value":
                            served += 1
                except ConnectionRefusedError as error:
                    refused.append(error)
                except ConnectionError:
                    pass

        thread = threading.Thread(target=knock)
        thread.start()
        for _ in range(3):
            time.sleep(0.3)
            processes[-1].send_signal(signal.SIGTERM)
            assert processes[-1].wait(20) == 0
            before = served
            processes.append(start(tmp_path, sockets=[listening]))
            deadline = time.monotonic() + 20
            while served <= before + 5:
                assert time.monotonic() < deadline, "it does not serve after the restart"
                time.sleep(0.01)
        stop.set()
        thread.join()
        assert not refused and served > 10


@pytest.mark.cold_tier
def test_sockets_of_every_kind_are_taken(tmp_path, processes):
    path = tmp_path / "socket"
    local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    local.bind(str(path))
    local.listen(16)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))
    with socket.create_server(("127.0.0.1", 0)) as listening, local, datagrams:
        processes.append(start(tmp_path, sockets=[listening, local, datagrams], names="tcp:local:udp"))
        with Connection(listening.getsockname()[1]) as connection:
            connection.set("k", b"v")
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(b"get k\r\n")
        assert client.recv(100) == b"VALUE k 0 1\r\nv\r\nEND\r\n"
        client.close()
        asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        asker.settimeout(20)
        asker.sendto(b"\0\1\0\0\0\1\0\0get k\r\n", datagrams.getsockname())
        assert asker.recv(1400)[8:] == b"VALUE k 0 1\r\nv\r\nEND\r\n"
        processes[0].send_signal(signal.SIGTERM)
        assert processes[0].wait(20) == 0
        assert path.exists(), "the file of a socket that was passed is not removed"


@pytest.mark.cold_tier
def test_a_descriptor_that_is_no_listening_socket_is_an_error(tmp_path, processes):
    with (tmp_path / "file").open("w") as file:
        processes.append(start(tmp_path, sockets=[file]))
        assert processes[0].wait(20) == 78
        assert "descriptor 3" in (tmp_path / "stderr.log").read_text()


@pytest.mark.cold_tier
def test_a_reload_of_the_service_says_what_became_of_it(tmp_path, processes):
    unit = (harness.ROOT / "packaging" / "systemd" / "thermocline.service").read_text()
    command = next(line for line in unit.splitlines() if line.startswith("ExecReload=")).removeprefix("ExecReload=").split()
    assert command[0] == "/usr/bin/thermocline"
    manager = Notifications(tmp_path, abstract=True)
    config = tmp_path / "thermocline.yaml"
    config.write_text("log:\n  level: info\n")
    processes.append(start(tmp_path, "--config", str(config), environment={"NOTIFY_SOCKET": manager.name}))
    assert manager.next() == b"READY=1"

    def reload() -> subprocess.CompletedProcess:
        words = [str(harness.BINARY), *(word.replace("$MAINPID", str(processes[0].pid)) for word in command[1:])]
        return subprocess.run(words, capture_output=True, text=True, timeout=20, env=harness.ENVIRONMENT)

    config.write_text("log:\n  level: debug\n")
    done = reload()
    assert done.returncode == 0 and "applied: log.level info -> debug" in done.stdout, done
    config.write_text("log:\n  level: loud\n")
    done = reload()
    assert done.returncode == 78 and "nothing was changed" in done.stderr and "loud" in done.stderr, done
