"""TLS: handshakes of all kinds, certificates read again, and the same protocol inside, however its records are cut."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

import server as harness
from authority import Authority
from server import Connection, Server
from test_bad_start import BAD_CONFIGURATION, refusal

KIB = 1024


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


def client(authority: Authority, certificate: tuple[str, str] | None = None, version: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.roots)
    if version:
        context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    if version in ("TLSv1", "TLSv1_1"):
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if certificate:
        context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def secure(make_server, authority):
    """Makes servers with TLS, started; `more`: further options."""
    files = authority.sign("server")

    def make(*more: str, **settings) -> Server:
        server = make_server("-Z", "-o", f"ssl_chain_cert={files[0]},ssl_key={files[1]}", *more, **settings)
        server.security = client(authority)
        return server.start()

    return make


def is_refused(port: int, context: ssl.SSLContext) -> bool:
    """Whether there is no connection. With TLS 1.3 a client learns only when it reads that its certificate won't do."""
    try:
        with Connection(port, 10, context) as connection:
            return connection.call(b"version\r\n") == b""
    except (OSError, ConnectionError):
        return True


def serial(connection: Connection) -> str:
    return connection.socket.getpeercert()["serialNumber"]


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_the_protocol_is_the_same_inside(secure, authority, version):
    server = secure(memory=16)
    server.security = client(authority, version=version)
    value = os.urandom(700_000)
    with server.connect() as connection:
        connection.set("small", b"v", flags=7)
        connection.set("large", value)
        assert connection.get_all(["small", "large"]).keys() == {"small", "large"}
        assert connection.get("large") == value
        assert connection.call(b"mn\r\n") == b"MN"
        statistics = connection.statistics()
        assert statistics["ssl_handshake_errors"] == statistics["ssl_proto_errors"] == "0"
        assert connection.statistics("settings")["ssl_enabled"] == "yes"


def test_old_versions_are_refused(secure, authority):
    server = secure("-o", "ssl_min_version=3")
    assert is_refused(server.port, client(authority, version="TLSv1_2"))
    assert not is_refused(server.port, client(authority, version="TLSv1_3"))
    server.terminate()
    server = secure()
    assert is_refused(server.port, client(authority, version="TLSv1_1"))


def test_clients_that_have_to_show_a_certificate(secure, authority, tmp_path):
    (tmp_path / "other").mkdir()
    strangers = Authority(tmp_path / "other", "other")
    stranger = strangers.sign("stranger")
    friend = authority.sign("friend")
    plain, lenient, strict = (harness.free_port() for _ in range(3))
    asking, requiring = "ssl_verify_mode=1", "ssl_verify_mode=2"

    def listeners() -> tuple[str, ...]:
        return ("-l", f"notls:127.0.0.1:{plain},btls:127.0.0.1:{lenient},mtls:127.0.0.1:{strict}")

    server = secure("-o", f"ssl_ca_cert={authority.roots},{asking}", *listeners())
    nobody, known, unknown = client(authority), client(authority, friend), client(authority, stranger)
    assert not is_refused(server.port, nobody) and not is_refused(server.port, known)
    assert is_refused(server.port, unknown)
    assert not is_refused(lenient, nobody) and not is_refused(lenient, unknown)
    assert is_refused(strict, nobody) and is_refused(strict, unknown) and not is_refused(strict, known)
    with Connection(plain) as connection:
        assert connection.call(b"version\r\n").startswith(b"VERSION")
    server.terminate()

    server.options[server.options.index(f"ssl_ca_cert={authority.roots},{asking}")] = (
        f"ssl_ca_cert={authority.roots},{requiring}")
    server.security = known
    server.start()
    assert is_refused(server.port, nobody) and is_refused(server.port, unknown)
    with server.connect() as connection:
        assert int(connection.statistics()["ssl_handshake_errors"]) >= 2


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_sessions_are_resumed_but_not_where_more_is_asked(secure, authority, version):
    strict = harness.free_port()
    server = secure("-o", f"ssl_ca_cert={authority.roots}", "-l", f"mtls:127.0.0.1:{strict}")
    context = client(authority, version=version)

    def connect(port: int, session=None) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
        return context.wrap_socket(raw, server_hostname="localhost", session=session)

    with connect(server.port) as first:
        first.sendall(b"version\r\n")
        assert first.recv(100)
        session = first.session
    with connect(server.port, session) as again:
        again.sendall(b"version\r\n")
        assert again.recv(100) and again.session_reused
    try:
        with connect(strict, session) as intruder:
            intruder.sendall(b"version\r\n")
            assert intruder.recv(100) == b"", "a session without a certificate was resumed where one is required"
    except OSError:
        pass


@pytest.mark.parametrize("how", ["refresh_certs", "SIGHUP"])
def test_certificates_are_read_again_without_dropping_a_connection(secure, authority, how, tmp_path):
    server = secure()

    def again(connection: Connection) -> bytes:
        if how == "refresh_certs":
            return connection.call(b"refresh_certs\r\n")
        seen = server.log.count("settings were read again")
        os.kill(server.pid, signal.SIGHUP)
        deadline = time.monotonic() + 10
        while server.log.count("settings were read again") == seen:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return b"OK" if "nothing was changed" not in server.log else b"Error"

    with server.connect() as old:
        before = serial(old)
        authority.sign("server")
        with server.connect() as connection:
            assert serial(connection) == before, "nobody asked for it yet"
        assert again(old) == b"OK"
        with server.connect() as fresh:
            after = serial(fresh)
            assert after != before
            assert fresh.call(b"set k 0 0 1\r\nx\r\n") == b"STORED"
        assert old.get("k") == b"x", "the connection of before goes on"

        Path(authority.path("server.pem")).write_text("no certificate\n")
        assert again(old).startswith(b"Error")
        with server.connect() as fresh:
            assert serial(fresh) == after, "what can't be read changes nothing"
        authority.sign("server")


def test_plain_text_to_tls_and_tls_to_plain_text_are_closed(secure, make_server, authority):
    server = secure()
    for said in (b"get a\r\n", b"\x80\x0a" + bytes(22), b"x" * 5000):
        with Connection(server.port, 10) as connection:
            connection.send(said)
            try:
                while connection._receive():
                    pass
            except ConnectionResetError:
                pass
    assert not is_refused(server.port, client(authority))
    plain = make_server(name="plain").start()
    began = time.monotonic()
    assert is_refused(plain.port, client(authority))
    assert time.monotonic() - began < 5, "closed, not left to wait"
    with plain.connect() as connection:
        assert connection.call(b"version\r\n").startswith(b"VERSION")


def test_records_in_pieces_and_many_records_at_once(secure, authority):
    """A peer that sends its records byte by byte, or a thousand in one piece, is answered the same."""
    server = secure(threads=1)
    context = client(authority)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def pump(action, piece: int) -> object:
        while True:
            try:
                result = action()
                break
            except ssl.SSLWantReadError:
                send(piece)
                incoming.write(raw.recv(1 << 16))
        send(piece)
        return result

    def send(piece: int) -> None:
        data = outgoing.read()
        for at in range(0, len(data), piece):
            raw.sendall(data[at:at + piece])

    def answer(count: int, piece: int) -> bytes:
        received = b""
        while len(received) < count:
            received += pump(lambda: peer.read(1 << 16), piece)
        return received

    pump(peer.do_handshake, 1)
    pump(lambda: peer.write(b"set k 0 0 5\r\nhello\r\n"), 1)
    assert answer(8, 1) == b"STORED\r\n"
    # Each command in a record of its own, all of them sent as one.
    expected = b"VALUE k 0 5\r\nhello\r\nEND\r\n"
    for _ in range(5000):
        peer.write(b"get k\r\n")
    writer = threading.Thread(target=lambda: send(1 << 30))
    writer.start()
    assert answer(5000 * len(expected), 1 << 30) == 5000 * expected
    writer.join()
    # A large value in records of one kilobyte, and a command behind it in the same piece.
    value = os.urandom(300_000)
    peer.write(b"set big 0 0 300000\r\n")
    for at in range(0, len(value), KIB):
        peer.write(value[at:at + KIB])
    peer.write(b"\r\nget big\r\n")
    send(1 << 30)
    head = b"STORED\r\nVALUE big 0 300000\r\n"
    assert answer(len(head) + 300_007, 1 << 30) == head + value + b"\r\nEND\r\n"
    raw.close()


@pytest.mark.cold_tier
def test_a_reader_that_is_slow_and_rows_that_are_cold(secure):
    """Replies that a socket does not take at once, also from pinned memory, and commands that wait for the file."""
    server = secure("--promote-after", "0", memory=2)
    value = os.urandom(200_000)
    with server.connect() as connection:
        connection.set("big", value)
        for i in range(3000):
            connection.set(f"k{i}", b"%d" % i * 500)
        for i in range(0, 3000, 7):
            assert connection.get(f"k{i}") == b"%d" % i * 500
        connection.send(b"".join(b"get k%d big\r\n" % (i * 50) for i in range(60)))
        time.sleep(0.5)
        for i in range(60):
            found = {}
            while (line := connection.read_line()) != b"END\r\n":
                words = line.split()
                found[words[1]] = connection.read_exactly(int(words[3]) + 2)[:-2]
            assert found == {b"k%d" % (i * 50): b"%d" % (i * 50) * 500, b"big": value}


def test_what_tls_needs_is_asked_for_at_the_start(make_server, authority, tmp_path):
    certificate, key = authority.sign("server")
    other_key = authority.sign("someone")[1]
    (tmp_path / "empty").write_text("")
    for words, named in [
        (["-Z"], "ssl_chain_cert"),
        (["-Z", "-o", "ssl_chain_cert=/nowhere"], "/nowhere"),
        (["-Z", "-o", f"ssl_chain_cert={certificate},ssl_key={other_key}"], "someone.key"),
        (["-Z", "-o", f"ssl_chain_cert={tmp_path}/empty,ssl_key={key}"], "empty"),
        (["-Z", "-o", f"ssl_chain_cert={certificate},ssl_key={key},ssl_ciphers=none-such"], "ciphers"),
        (["-Z", "-o", f"ssl_chain_cert={certificate},ssl_key={key},ssl_verify_mode=2"], "ssl_ca_cert"),
        (["-Z", "-o", f"ssl_chain_cert={certificate},ssl_key={key},ssl_verify_mode=7"], "ssl_verify_mode"),
        (["-l", "mtls:127.0.0.1"], "TLS"),
    ]:
        status, said = refusal(make_server(*words, name=f"refused{abs(hash(named))}", cold=False))
        assert status == BAD_CONFIGURATION and named in said, (words, said)


def test_pymemcache_speaks_tls(secure, authority):
    from pymemcache.client.base import Client

    server = secure()
    one = Client(("127.0.0.1", server.port), tls_context=client(authority), timeout=10, connect_timeout=10)
    assert one.set("a", b"1" * 100_000) and one.get("a") == b"1" * 100_000
    assert one.set_many({f"k{i}": b"%d" % i for i in range(200)}) == []
    assert one.get_many([f"k{i}" for i in range(200)]) == {f"k{i}": b"%d" % i for i in range(200)}
    one.close()
