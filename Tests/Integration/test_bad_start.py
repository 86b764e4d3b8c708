"""A start that can't succeed says why in one line; a damaged file doesn't keep the server from serving."""

from __future__ import annotations

import hashlib
import os
import socket
import sqlite3
import subprocess
import time

import pytest

import server as harness
from authority import Authority
from server import Server

pytestmark = pytest.mark.cold_tier

#: EX_CONFIG of sysexits.h.
BAD_CONFIGURATION = 78


def refusal(server: Server, *command: str) -> tuple[int, str]:
    """Starts a server that is to refuse; its status and the one line that it said."""
    server.port = server.fixed_port or harness.free_port()
    server.spawn()
    assert server.process is not None
    status = server.process.wait(20)
    server.process = None
    harness.running.discard(server)
    said = [line for line in server.log.splitlines() if line.strip()]
    assert status != 0, f"it should have refused; it said {said}"
    assert status > 0, f"it was ended by signal {-status}; it said {said}"
    assert len(said) == 1, f"one clear line, not {said}"
    assert "Fatal error" not in said[0] and "Swift" not in said[0], said[0]
    return status, said[0]


BAD_WORDS = [
    (["--no-such-option"], "no-such-option"),
    (["-m", "lots"], "lots"),
    (["-m", "-5"], "-m"),
    (["-t", "0"], "-t"),
    (["-c", "0"], "-c"),
    (["-I", "1000"], "-I"),
    (["-p", "99999"], "99999"),
    (["-p", "http"], "http"),
    (["-l", "no.such.host.invalid"], "no.such.host.invalid"),
    (["--cold-limit", "huge"], "huge"),
    (["--cold-limit", "0"], "cold-limit"),
    (["--durability", "sometimes"], "sometimes"),
    (["--durability-interval", "soon"], "soon"),
    (["--promote-after", "often"], "often"),
    (["--demote-after", "later"], "later"),
    (["left over"], "left over"),
]


@pytest.mark.parametrize("words, named", BAD_WORDS, ids=[" ".join(words) for words, _ in BAD_WORDS])
def test_a_bad_setting_is_named_before_anything_is_opened(make_server, words, named):
    server = make_server(*words)
    status, said = refusal(server)
    assert status == BAD_CONFIGURATION
    assert named in said
    assert not server.cold_path.exists()


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
@pytest.mark.parametrize("option", ["--config", "-Y", "--admin-token-file", "ssl_chain_cert", "ssl_key", "ssl_ca_cert"])
def test_a_file_that_never_ends_is_refused(make_server, tmp_path, option, device):
    certificate, key = Authority(tmp_path, "authority").sign("server")
    files = {"ssl_chain_cert": certificate, "ssl_key": key, option: device}
    words = {"--config": ["--config", device], "-Y": ["-Y", device],
             "--admin-token-file": ["--admin-listen", "127.0.0.1:0", "--admin-token-file", device]}
    server = make_server(*words.get(option, ["-Z", "-o", ",".join(f"{name}={path}" for name, path in files.items())]))
    status, said = refusal(server)
    assert status == BAD_CONFIGURATION
    assert device in said and "neither a regular file nor a pipe" in said
    assert not server.cold_path.exists()


def test_a_config_of_more_than_a_mebibyte_is_refused(make_server, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("#" * (1 << 20) + "\n")
    status, said = refusal(make_server("--config", str(config)))
    assert status == BAD_CONFIGURATION
    assert str(config) in said and "longer than 1 MiB" in said


def test_a_config_may_come_through_a_pipe():
    done = subprocess.run([harness.BINARY, "print-config", "--config", "/dev/stdin"], input="hot: {memory: 17m}\n",
                          capture_output=True, text=True, env=harness.ENVIRONMENT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "17" in done.stdout


def test_a_cold_path_below_a_file_is_refused(make_server):
    server = make_server()
    (server.directory / "file").write_text("x")
    server.options = ["--cold-path", str(server.directory / "file" / "cold.db")]
    server.cold = True
    _, said = refusal(server)
    assert "file/cold.db" in said


def test_a_directory_in_place_of_the_file_is_refused(make_server):
    server = make_server()
    server.cold_path.mkdir()
    _, said = refusal(server)
    assert "cold.db" in said
    assert server.cold_path.is_dir(), "it must not be renamed or removed"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(make_server):
    server = make_server()
    server.cold_path.write_bytes(b"")
    server.cold_path.chmod(0)
    _, said = refusal(server)
    assert "cold.db" in said


def test_a_port_in_use_is_refused(make_server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        _, said = refusal(make_server(port=port))
    assert str(port) in said


def test_a_second_server_on_the_same_file_is_refused(make_server):
    first = make_server(name="first").start()
    with first.connect() as connection:
        connection.set("key", b"x")
        second = make_server(name="second")
        second.options = ["--cold-path", str(first.cold_path)]
        _, said = refusal(second)
        assert "cold.db" in said
        assert connection.get("key") == b"x"
        connection.set("key", b"still works")
    first.terminate()
    first.start()
    with first.connect() as connection:
        assert connection.get("key") == b"still works"


def corrupt_ones(server: Server) -> list:
    return [path for path in server.directory.iterdir() if path.name.startswith(server.cold_path.name + ".corrupt-")]


@pytest.mark.parametrize("content", [b"this is no database\n" * 5000, b"x", os.urandom(100_000),
                                     b"SQLite format 3\x00" + b"\xff" * 50_000],
                         ids=["text", "one byte", "noise", "only the first bytes are right"])
def test_a_file_that_is_no_database_is_put_aside(make_server, content):
    server = make_server()
    server.cold_path.write_bytes(content)
    server.start()
    with server.connect() as connection:
        connection.set("key", b"x")
        assert connection.get("key") == b"x"
    aside = corrupt_ones(server)
    assert [path.read_bytes() for path in aside] == [content]
    assert "corrupt" in server.log
    server.terminate()
    server.start()
    with server.connect() as connection:
        assert connection.get("key") == b"x"
    assert corrupt_ones(server) == aside


def filled(make_server, count: int = 2000) -> Server:
    server = make_server().start()
    with server.connect() as connection:
        for i in range(count):
            connection.set(f"key{i}", b"value of key%d " % i * 20)
    server.terminate()
    return server


def serves_nothing_wrong(server: Server, count: int = 2000) -> int:
    """Expects each key to have its value or none; returns how many have it."""
    with server.connect() as connection:
        found = connection.get_all([f"key{i}" for i in range(count)], "get")
        for key, (value, _, _) in found.items():
            assert value == b"value of %s " % key.encode() * 20
        connection.set("new", b"x")
        assert connection.get("new") == b"x"
    return len(found)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_serves_nothing_wrong(make_server, share):
    server = filled(make_server)
    os.truncate(server.cold_path, int(server.cold_path.stat().st_size * share))
    server.start()
    serves_nothing_wrong(server)
    server.terminate()
    server.start()
    serves_nothing_wrong(server)


@pytest.mark.parametrize("seed", range(5))
def test_flipped_bytes_serve_nothing_wrong(make_server, seed):
    import random

    rng = random.Random(seed)
    server = filled(make_server)
    content = bytearray(server.cold_path.read_bytes())
    for _ in range(20):
        content[rng.randrange(100, len(content))] ^= 1 << rng.randrange(8)
    server.cold_path.write_bytes(content)
    server.start()
    serves_nothing_wrong(server)
    assert server.process is not None and server.process.poll() is None


def test_a_newer_file_is_refused_and_left_as_it_is(make_server):
    server = filled(make_server, count=10)
    with sqlite3.connect(server.cold_path) as database:
        database.execute("PRAGMA user_version = 9999")
    database.close()
    before = hashlib.sha256(server.cold_path.read_bytes()).digest()
    server.log_path.write_text("")
    _, said = refusal(server)
    assert "9999" in said
    assert hashlib.sha256(server.cold_path.read_bytes()).digest() == before
    assert corrupt_ones(server) == []


def test_an_unclean_stop_is_no_damage(make_server):
    server = make_server().start()
    with server.connect() as connection:
        connection.set("key", b"x")
    time.sleep(2)
    server.kill()
    server.start()
    assert corrupt_ones(server) == []
    with server.connect() as connection:
        assert connection.get("key") == b"x"
