"""What the server may do, who may read what it keeps, and what it tells nobody."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import stat
import subprocess
import time
import urllib.request

import pytest

import server as harness
from authority import Authority
from server import Server

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

NOBODY = pwd.getpwnam("nobody")
PASSWORD = "pass-8d1f0c5ae2"
TOKEN = "token-71b3e94c06da"


def status(server: Server) -> dict[str, list[str]]:
    with open(f"/proc/{server.pid}/status") as lines:
        return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def give_to_nobody(directory) -> None:
    """The directory, and the way to it."""
    directory.mkdir(parents=True, exist_ok=True)
    os.chown(directory, NOBODY.pw_uid, NOBODY.pw_gid)
    for above in list(directory.parents)[:-1]:
        if above.stat().st_uid == os.geteuid() and not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)


def privileged_port() -> int:
    for port in range(1023, 900, -1):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    pytest.skip("no free port below 1024")


@as_root
@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_u_gives_up_root_and_keeps_files_and_sockets(make_server, tmp_path, where):
    directory = tmp_path / "server"
    give_to_nobody(directory)
    passwords = tmp_path / "passwords"
    passwords.write_text(f"ann:{PASSWORD}\n")
    passwords.chmod(0o600)
    options = ["-u", "nobody", "-P", str(directory / "pid")]
    path = str(directory / "socket")
    server = make_server(*options, *(["-s", path] if where == "unix" else []))

    def start() -> None:
        if where == "tcp":
            server.fixed_port = server.port = privileged_port()
            server.start()
            return
        server.port = harness.free_port()
        server.spawn()
        deadline = time.monotonic() + 20
        while not os.path.exists(path) or not os.path.exists(directory / "pid"):
            assert time.monotonic() < deadline, server.log
            time.sleep(0.005)

    def say(data: bytes) -> bytes:
        family, address = (socket.AF_UNIX, path) if where == "unix" else (socket.AF_INET, ("127.0.0.1", server.port))
        with socket.socket(family) as client:
            client.settimeout(20)
            client.connect(address)
            client.sendall(data + b"quit\r\n")
            return b"".join(iter(lambda: client.recv(4096), b""))

    start()
    found = status(server)
    assert set(found["Uid"]) == {str(NOBODY.pw_uid)} and set(found["Gid"]) == {str(NOBODY.pw_gid)}
    assert found["Groups"] == []
    for capabilities in ("CapPrm", "CapEff", "CapAmb"):
        assert int(found[capabilities][0], 16) == 0, capabilities
    assert "running as root" not in server.log
    assert say(b"set k 0 0 5\r\nvalue\r\n") == b"STORED\r\n"
    for name in os.listdir(directory):
        if name.startswith(("cold.db", "pid")):
            assert (directory / name).stat().st_uid == NOBODY.pw_uid, name
    # A reload needs no right that is gone.
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while "settings were read again" not in server.log:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert "nothing was changed" not in server.log
    server.terminate()
    assert not (directory / "pid").exists()
    start()
    assert say(b"get k\r\n") == b"VALUE k 0 5\r\nvalue\r\nEND\r\n"


@as_root
def test_root_without_u_is_warned(make_server):
    assert "running as root" in make_server().start().log


@as_root
def test_files_that_only_root_may_read_are_read_before(make_server, tmp_path):
    """Passwords and keys are read while the server may still do so."""
    directory = tmp_path / "server"
    give_to_nobody(directory)
    passwords = tmp_path / "passwords"
    passwords.write_text(f"ann:{PASSWORD}\n")
    passwords.chmod(0o600)
    server = make_server("-u", "nobody", "-Y", str(passwords)).start()
    with server.connect() as connection:
        token = f"ann {PASSWORD}".encode()
        assert connection.call(b"set a 0 0 %d\r\n%s\r\n" % (len(token), token)) == b"STORED"
        # It can't be read again, so nothing is changed, and the log says why.
        server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while "nothing was changed" not in server.log:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        connection.set("k", b"v")


def test_nobody_else_may_read_what_it_keeps(make_server, tmp_path):
    before = os.umask(0)
    try:
        server = make_server().start()
        with server.connect() as connection:
            connection.set("k", b"v")
        names = {name for name in os.listdir(server.directory) if name.startswith("cold.db")}
        assert {"cold.db", "cold.db-wal", "cold.db-shm"} <= names
        modes = {name: stat.S_IMODE((server.directory / name).stat().st_mode) for name in names}
        server.terminate()
        copy, rows = tmp_path / "copy.db", tmp_path / "rows"
        for words in (["backup", str(server.cold_path), str(copy)], ["export", str(server.cold_path), "--output", str(rows)]):
            done = subprocess.run([harness.BINARY, *words], capture_output=True, text=True, env=harness.ENVIRONMENT)
            if done.returncode == 0:
                continue
            assert words[0] == "export", done.stderr
        modes |= {path.name: stat.S_IMODE(path.stat().st_mode) for path in (copy, rows) if path.exists()}
        assert "copy.db" in modes
    finally:
        os.umask(before)
    assert all(mode == 0o600 for mode in modes.values()), {name: oct(mode) for name, mode in modes.items()}


def test_folder_and_socket_are_its_own(make_server, tmp_path, monkeypatch):
    monkeypatch.setitem(harness.ENVIRONMENT, "XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delitem(harness.ENVIRONMENT, "STATE_DIRECTORY", raising=False)
    path = tmp_path / "socket"
    before = os.umask(0)
    process = subprocess.Popen([harness.BINARY, "-s", path], stderr=subprocess.PIPE, text=True, env=harness.ENVIRONMENT)
    try:
        for line in process.stderr:
            if "cold tier in" in line:
                break
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "state" / "thermocline").stat().st_mode) == 0o700
    finally:
        os.umask(before)
        process.terminate()
        process.wait(20)
        process.stderr.close()


# Who is let in


WARNING = "whoever reaches this address"


@pytest.mark.parametrize("options, warned", [
    (["-l", "0.0.0.0"], True), (["-l", "127.0.0.1"], False), (["-l", "127.0.0.1,0.0.0.0:0"], True),
    (["-l", "0.0.0.0", "-Y", "{passwords}"], False), (["-l", "0.0.0.0", "{tls}"], True),
    (["-l", "0.0.0.0", "{tls}", "-o", "ssl_verify_mode=2,ssl_ca_cert={roots}"], False),
    (["-s", "{directory}/socket"], False),
])
def test_an_address_that_others_reach_and_anybody_may_use_is_warned_of(tmp_path, options, warned):
    """Also with TLS: it keeps out those who listen, not those who ask."""
    passwords = tmp_path / "passwords"
    passwords.write_text(f"ann:{PASSWORD}\n")
    words = [str(harness.BINARY), "-p", "-1", "--no-cold"]
    names = {"passwords": str(passwords), "directory": str(tmp_path)}
    if "{tls}" in options:
        authority = Authority(tmp_path, "authority")
        certificate, key = authority.sign("server")
        names["roots"] = authority.roots
        at = options.index("{tls}")
        options = options[:at] + ["-Z", "-o", f"ssl_chain_cert={certificate},ssl_key={key}"] + options[at + 1:]
    # Any free port.
    options = [option.format(**names) for option in options]
    options = [",".join(host if ":" in host else f"{host}:0" for host in word.split(",")) if before == "-l" else word
               for before, word in zip([""] + options, options)]
    process = subprocess.Popen(words + options, stderr=subprocess.PIPE, text=True, env=harness.ENVIRONMENT)
    try:
        said = ""
        while "listening on" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
    finally:
        process.terminate()
        said += process.stderr.read()
        process.wait(20)
        process.stderr.close()
    assert (WARNING in said) == warned, said


def test_secrets_that_every_user_may_read_are_warned_of(make_server, tmp_path):
    """At the start and at each reload, as long as it is so."""
    certificate, key = Authority(tmp_path, "authority").sign("server")
    passwords, token = tmp_path / "passwords", tmp_path / "token"
    passwords.write_text(f"ann:{PASSWORD}\n")
    token.write_text(f"{TOKEN}\n")
    files = {"auth-file": str(passwords), "tls.key": str(key), "admin.token-file": str(token)}
    server = make_server("-Y", str(passwords), "-Z", "-o", f"ssl_chain_cert={certificate},ssl_key={key}",
                         "--admin-listen", "127.0.0.1:0", "--admin-token-file", str(token))

    def warned() -> list[str]:
        lines = [line for line in server.log.splitlines() if "any user of this machine may read or change" in line]
        found = [setting for setting, path in files.items() for line in lines if f"{setting}: " in line and path in line]
        assert len(found) == len(lines), lines
        return found

    def start(number: int) -> None:
        server.port = harness.free_port()
        server.spawn()
        until("metrics and dashboard on", number)

    def until(words: str, count: int) -> None:
        deadline = time.monotonic() + 20
        while server.log.count(words) < count:
            assert time.monotonic() < deadline and not server.has_crashed(), server.log
            time.sleep(0.005)

    for path in files.values():
        os.chmod(path, 0o640)
    start(1)
    assert warned() == []
    for path, mode in zip(files.values(), (0o644, 0o604, 0o646)):
        os.chmod(path, mode)
    server.process.send_signal(signal.SIGHUP)
    until("settings were read again", 1)
    assert warned() == list(files)
    for path in files.values():
        os.chmod(path, 0o600)
    server.process.send_signal(signal.SIGHUP)
    until("settings were read again", 2)
    assert warned() == list(files)
    server.terminate()
    os.chmod(passwords, 0o644)
    start(2)
    assert sorted(warned()) == sorted([*files, "auth-file"])


# What is told to nobody


def test_no_secret_is_told(tmp_path):
    passwords, token = tmp_path / "passwords", tmp_path / "token"
    passwords.write_text(f"ann:{PASSWORD}\n")
    token.write_text(f"{TOKEN}\n")
    server = Server(tmp_path / "server", "-Y", str(passwords), "-S", "-vvv", "-A", "--admin-listen", "127.0.0.1:0",
                    "--admin-token-file", str(token)).start()
    told = b""
    try:
        with server.connect() as connection:
            for tried in (f"ann {PASSWORD}x", f"ann {PASSWORD}"):
                told += connection.call(b"set a 0 0 %d\r\n%s\r\n" % (len(tried), tried.encode()))
            for topic in ("", "settings", "conns", "tiers", "items"):
                told += repr(connection.statistics(topic)).encode()
            connection.set("k", b"v")
        admin = server.log.split("metrics and dashboard on ")[1].split()[0].removeprefix("http://").rstrip("/,")
        for page in ("/metrics", "/status.json", "/history.json", "/"):
            request = urllib.request.Request(f"http://{admin}{page}", headers={"Authorization": f"Bearer {TOKEN}"})
            told += urllib.request.urlopen(request, timeout=20).read()
        # A password file in which nothing is right is not shown either.
        for content in (PASSWORD, f"ann {PASSWORD}", f"ann:{PASSWORD * 100}"):
            passwords.write_text(content + "\n")
            before = server.log.count("nothing was changed")
            server.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 20
            while server.log.count("nothing was changed") == before:
                assert time.monotonic() < deadline
                time.sleep(0.005)
        passwords.write_text(f"ann:{PASSWORD}\n")
        for name in ("cmdline", "status", "comm"):
            told += open(f"/proc/{server.pid}/{name}", "rb").read()
        for thread in os.listdir(f"/proc/{server.pid}/task"):
            told += open(f"/proc/{server.pid}/task/{thread}/comm", "rb").read()
        printed = subprocess.run([harness.BINARY, "print-config", *server.arguments()[1:]], capture_output=True,
                                 env=harness.ENVIRONMENT | {"THERMOCLINE_ADMIN_TOKEN": TOKEN})
        told += printed.stdout + printed.stderr
        server.terminate()
    finally:
        server.kill()
    told += server.log.encode()
    assert b"admin" in told
    assert PASSWORD.encode() not in told and TOKEN.encode() not in told
