"""Passwords: the text protocol's first command, and SASL PLAIN of the binary protocol, from one file."""

from __future__ import annotations

import signal
import socket
import subprocess
import time

import pytest

import server as harness
from binary_frames import *
from server import Server


def token(user: str, password: str, command: str = "set a 0 0", more: str = "") -> bytes:
    data = f"{user} {password}"
    return f"{command} {len(data)}{more}\r\n{data}\r\n".encode()


GOOD = token("ann", "secret")

STORED, END, CLOSED = b"STORED", b"END", b"<closed>"
UNAUTHENTICATED, FAILURE = b"CLIENT_ERROR unauthenticated", b"CLIENT_ERROR authentication failure"

#: What the first commands may be, each on a connection of its own, and what is answered to each. The answers are those of
#: memcached 1.6.45 (Debian's 1.6.18 judges short lines and some file entries otherwise).
FIRST = {
    "right": [(GOOD, STORED), (b"get x\r\n", END), (b"set x 0 0 1\r\ny\r\n", STORED)],
    "another user": [(token("bob", "p:w d"), STORED), (b"get y\r\n", END)],
    "noreply is not heard": [(token("ann", "secret", more=" noreply"), STORED), (b"get y\r\n", END)],
    "an empty password": [(token("eve", ""), STORED), (b"get y\r\n", END)],
    "wrong, then right": [(token("ann", "Secret"), FAILURE), (GOOD, STORED), (b"get y\r\n", END)],
    "unknown user": [(token("nobody", "secret"), FAILURE), (b"get y\r\n", UNAUTHENTICATED)],
    "user and password swapped": [(token("secret", "ann"), FAILURE)],
    "parts of a password": [(token("ann", "secre"), FAILURE), (token("ann", "secrett"), FAILURE), (token("an", "secret"), FAILURE)],
    "no space": [(b"set a 0 0 6\r\nsecret\r\n", b"CLIENT_ERROR bad authentication token format")],
    "another command": [(b"get xyz\r\n", UNAUTHENTICATED), (b"version\r\n", UNAUTHENTICATED),
                        (b"stats foo\r\n", UNAUTHENTICATED), (GOOD, STORED), (b"get y\r\n", END)],
    "a set that is none": [(b"set a 0 0\r\n", UNAUTHENTICATED), (b"set a 0 0 x\r\n", UNAUTHENTICATED),
                           (b"set a 0 0 -1\r\n", UNAUTHENTICATED), (GOOD, STORED)],
    "a bad end": [(b"set a 0 0 10\r\nann secretxx", b"CLIENT_ERROR bad command line termination"), (GOOD, STORED)],
    "a token too long": [(b"set a 0 0 16385\r\n", b"CLIENT_ERROR auth token too long"), (GOOD, STORED)],
    "a short line": [(b"quit\r\n", CLOSED)],
    "empty lines": [(b"\r\n\r\n", CLOSED)],
    "a long line": [(b"x" * 3000, CLOSED)],
    "not only set": [(token("ann", "secret", command="settle a 0 0"), STORED), (b"get y\r\n", END)],
}


def password_file(directory, text: str = "ann:secret\nbob:p:w d\r\neve:\n"):
    path = directory / "passwords"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def asking(tmp_path_factory):
    path = password_file(tmp_path_factory.mktemp("auth"))
    server = Server(tmp_path_factory.mktemp("asking"), "-Y", str(path)).start()
    yield server
    server.kill()


def answers(server: Server, pieces: list[bytes]) -> list[bytes]:
    """The line that is answered to each piece, sent when the one before has been answered."""
    said = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for piece in pieces:
            received = b""
            try:
                connection.sendall(piece)
                while not received.endswith(b"\n"):
                    data = connection.recv(65536)
                    if not data:
                        return said + [CLOSED]
                    received += data
            except (BrokenPipeError, ConnectionResetError):
                return said + [CLOSED]
            said.append(received.removesuffix(b"\r\n"))
    return said


@pytest.mark.parametrize("case", FIRST)
def test_the_first_command_is_judged_as_memcached_judges_it(asking, case):
    assert answers(asking, [piece for piece, _ in FIRST[case]]) == [answer for _, answer in FIRST[case]]


def test_the_answers_are_the_same_in_one_piece(asking):
    pieces = [piece for case in FIRST.values() for piece, answer in case if answer not in (CLOSED, STORED, END)]
    with socket.create_connection(("127.0.0.1", asking.port), timeout=20) as connection:
        connection.sendall(b"".join(pieces) + GOOD)
        received = b""
        while not received.endswith(b"STORED\r\n"):
            received += connection.recv(65536)
    expected = [answer for case in FIRST.values() for _, answer in case if answer not in (CLOSED, STORED, END)]
    assert received.split(b"\r\n") == [*expected, STORED, b""]


def test_the_token_may_come_in_any_pieces(asking):
    stream = GOOD + b"get other\r\n"
    for at in range(1, len(stream)):
        with socket.create_connection(("127.0.0.1", asking.port), timeout=20) as connection:
            connection.sendall(stream[:at])
            time.sleep(0.001)
            connection.sendall(stream[at:])
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while data := connection.recv(65536):
                received += data
            assert received == b"STORED\r\nEND\r\n", at


def test_binary_frames_do_not_pass_by_the_password(asking):
    """With a password file alone only the text protocol is spoken."""
    said = answers(asking, [store(SET, b"k", b"v") + b"\r\n"])
    assert said[0].startswith(UNAUTHENTICATED) and b"\x81" not in said[0]


def call(connection, data: bytes) -> bytes:
    connection.sendall(data)
    return connection.recv(65536)


def test_the_file_is_read_again_on_sighup_and_a_bad_one_changes_nothing(tmp_path):
    path = password_file(tmp_path, "ann:secret\n")
    server = Server(tmp_path / "server", "-Y", str(path)).start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as old:
            assert call(old, GOOD) == b"STORED\r\n"
            path.write_text("ann:changed\nnew:user\n")
            assert answers(server, [GOOD]) == [STORED], "not before the signal"
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: answers(server, [token("new", "user")]) == [STORED])
            assert answers(server, [GOOD]) == [FAILURE]
            path.write_text("no colon here: but here\nnone at all\n")
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: "line 2" in server.log)
            assert "none at all" not in server.log and "secret" not in server.log
            assert answers(server, [token("new", "user")]) == [STORED]
            path.unlink()
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: "can't read" in server.log)
            assert answers(server, [token("new", "user")]) == [STORED]
            assert call(old, b"get x\r\n") == b"END\r\n", "who has come in stays"
    finally:
        server.kill()


def eventually(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def sasl(tmp_path_factory):
    path = password_file(tmp_path_factory.mktemp("auth"))
    server = Server(tmp_path_factory.mktemp("sasl"), "-S", "-Y", str(path)).start()
    yield server
    server.kill()


def binary_talk(server: Server, stream: bytes) -> tuple[list[tuple], bool]:
    """Statuses and values, and whether the connection was closed."""
    received, closed = b"", False
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(stream + frame(VERSION, opaque=LAST_OPAQUE))
        while True:
            try:
                data = connection.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                closed = True
                break
            received += data
            found = replies(received) if complete(received) else []
            if found and found[-1].opaque == LAST_OPAQUE:
                return [(reply.status, reply.value) for reply in found[:-1]], False
    return [(reply.status, reply.value) for reply in replies(received)], closed


def complete(data: bytes) -> bool:
    try:
        replies(data)
        return True
    except AssertionError:
        return False


def test_sasl_plain(sasl):
    refused, done = (0x20, b"Auth failure."), (0, b"Authenticated")
    assert binary_talk(sasl, frame(LIST_MECHANISMS)) == ([(0, b"PLAIN")], False)
    assert binary_talk(sasl, frame(GET, b"k")) == ([refused], True), "closed, as memcached does"
    assert binary_talk(sasl, frame(VERSION))[0][0][0] == 0, "the version is no secret"
    right = frame(AUTH, b"PLAIN", b"\0ann\0secret")
    assert binary_talk(sasl, right + frame(GET, b"k")) == ([done, (1, b"Not found")], False)
    assert binary_talk(sasl, frame(AUTH, b"PLAIN", b"ann\0ann\0secret")) == ([done], False)
    for wrong in (b"\0ann\0Secret", b"bob\0ann\0secret", b"ann secret", b"\0ann", b"\0\0", b"\0ann\0secret\0"):
        assert binary_talk(sasl, frame(AUTH, b"PLAIN", wrong) + frame(GET, b"k")) == ([refused, refused], True), wrong
    assert binary_talk(sasl, frame(AUTH, b"PLAIN", b"\0ann\0no") + right + frame(NOOP)) == ([refused, done, (0, b"")], False)
    # Asked first, then answered; a step without a beginning is refused.
    begun = frame(AUTH, b"PLAIN") + frame(STEP, b"PLAIN", b"\0ann\0secret") + frame(NOOP)
    assert binary_talk(sasl, begun) == ([(0x21, b""), done, (0, b"")], False)
    assert binary_talk(sasl, frame(STEP, b"PLAIN", b"\0ann\0secret")) == ([refused], False)
    assert binary_talk(sasl, frame(AUTH, b"CRAM-MD5", b"x")) == ([refused], False)
    assert binary_talk(sasl, frame(AUTH, b"M" * 33, b"x") + right) == ([(4, b"Invalid arguments"), done], False)
    assert binary_talk(sasl, frame(AUTH, b"PLAIN", b"x" * 20_000) + right) == ([(0x82, b"Out of memory"), done], False)


def test_a_new_attempt_gives_up_the_right_that_an_earlier_one_won(sasl):
    """Else who fails to become somebody else goes on as who he was. As memcached, also when mechanisms are only listed."""
    refused, done, missed = (0x20, b"Auth failure."), (0, b"Authenticated"), (1, b"Not found")
    right, asked = frame(AUTH, b"PLAIN", b"\0ann\0secret"), frame(GET, b"k")
    for attempt, answer in ((frame(AUTH, b"PLAIN", b"\0ann\0no"), refused), (frame(AUTH, b"OTHER", b"x"), refused),
                            (frame(AUTH, b"PLAIN"), (0x21, b"")), (frame(STEP, b"PLAIN", b"\0ann\0secret"), refused),
                            (frame(LIST_MECHANISMS), (0, b"PLAIN"))):
        assert binary_talk(sasl, right + asked + attempt + asked) == ([done, missed, answer, refused], True), attempt
    # What is refused before it is an attempt takes nothing.
    long = frame(AUTH, b"M" * 33, b"x")
    assert binary_talk(sasl, right + long + asked) == ([done, (4, b"Invalid arguments"), missed], False)


def test_sasl_steps_are_memcacheds(sasl):
    """Compared with memcached 1.6.18 built with SASL: the case of a mechanism does not matter, a step's name of it
    neither, and a step may be tried again."""
    refused, done, begun = (0x20, b"Auth failure."), (0, b"Authenticated"), (0x21, b"")
    start, step = frame(AUTH, b"PLAIN"), frame(STEP, b"PLAIN", b"\0ann\0secret")
    assert binary_talk(sasl, frame(AUTH, b"plain", b"\0ann\0secret")) == ([done], False)
    assert binary_talk(sasl, start + frame(STEP, b"X", b"\0ann\0secret")) == ([begun, done], False)
    assert binary_talk(sasl, start + frame(STEP, b"PLAIN", b"\0ann\0no") + step) == ([begun, refused, done], False)
    assert binary_talk(sasl, start + frame(STEP, b"PLAIN") + step) == ([begun, refused, done], False)
    assert binary_talk(sasl, start + frame(AUTH, b"OTHER", b"x") + step) == ([begun, refused, refused], False)


def test_with_sasl_the_text_protocol_asks_too(sasl):
    assert answers(sasl, [b"get xyz\r\n", GOOD, b"get xyz\r\n"]) == [UNAUTHENTICATED, STORED, END]


def test_attempts_are_counted_and_settings_shown(sasl):
    with socket.create_connection(("127.0.0.1", sasl.port), timeout=20) as connection:
        assert call(connection, GOOD) == b"STORED\r\n"
        connection.sendall(token("ann", "no").replace(b"set a", b"set b") + b"stats\r\nstats settings\r\nquit\r\n")
        text = b""
        while data := connection.recv(65536):
            text += data
    numbers = dict(line.split(" ", 2)[1:] for line in text.decode().splitlines() if line.startswith("STAT "))
    assert int(numbers["auth_cmds"]) >= 1 and int(numbers["auth_errors"]) <= int(numbers["auth_cmds"])
    assert numbers["auth_enabled_sasl"] == "yes" and numbers["auth_enabled_ascii"].endswith("passwords")


@pytest.mark.parametrize("options, words", [
    (["-S"], "-Y"),
    (["-Y", "/does/not/exist"], "/does/not/exist"),
    (["-Y", "BAD"], "line 1"),
    (["-Y", "GOOD", "-B", "binary"], "-S"),
    (["-S", "-Y", "GOOD", "-B", "ascii"], "-B ascii"),
])
def test_what_can_not_be_is_refused_at_the_start(tmp_path, options, words):
    good, bad = password_file(tmp_path), tmp_path / "bad"
    bad.write_text("nocolon\n")
    options = [{"GOOD": str(good), "BAD": str(bad)}.get(option, option) for option in options]
    done = subprocess.run([harness.BINARY, "-p", "-1", "--no-cold", *options], capture_output=True, text=True, timeout=30)
    assert done.returncode != 0 and words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert "nocolon" not in done.stderr
