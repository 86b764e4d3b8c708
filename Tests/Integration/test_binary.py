"""The binary protocol, frame by frame as memcached speaks it, in RAM and on disk."""

from __future__ import annotations

import random
import socket
import struct

import pytest

import server as harness
from arrangements import ARRANGEMENTS, make_arrangement
from binary_frames import *
from binary_frames import CasNames, exchange, frame, replies


@pytest.fixture(scope="module", params=ARRANGEMENTS)
def arrangement(request, tmp_path_factory):
    made = make_arrangement(request.param, tmp_path_factory.mktemp(request.param))
    yield made
    made.end()


#: A CAS value that neither server ever gives.
NO_CAS = 7_777_777_777_777_777_777


#: A frame whose CAS is that of the last reply with this opaque.
def with_cas(of: int, build):
    return lambda names: build(names.latest.get(of, NO_CAS))


LONGEST_KEY = b"k" * 250

#: Name: frames, each answered (or not) before the next is sent. Opaques tell them apart.
CASES = {
    "get misses, loud and quiet": [
        frame(GET, b"m", opaque=1), frame(GETQ, b"m", opaque=2), frame(GETK, b"m", opaque=3), frame(GETKQ, b"m", opaque=4)],
    "get hits with flags": [
        store(SET, b"a", b"value", flags=0xdeadbeef, opaque=1), frame(GET, b"a", opaque=2), frame(GETQ, b"a", opaque=3),
        frame(GETK, b"a", opaque=4), frame(GETKQ, b"a", opaque=5)],
    "any bytes are a key": [
        store(SET, b" \r\n\0\xff", b"x", opaque=1), frame(GETK, b" \r\n\0\xff", opaque=2), store(SET, LONGEST_KEY, b"y", opaque=3),
        frame(GETK, LONGEST_KEY, opaque=4)],
    "any bytes are a value": [
        store(SET, b"v", bytes(range(256)), opaque=1), frame(GET, b"v", opaque=2), store(SET, b"v", b"", opaque=3),
        frame(GET, b"v", opaque=4)],
    "add and replace": [
        store(ADD, b"ar", b"1", opaque=1), store(ADD, b"ar", b"2", opaque=2), store(ADDQ, b"ar", b"3", opaque=3),
        store(REPLACE, b"ar", b"4", opaque=4), store(REPLACEQ, b"ar", b"5", opaque=5), frame(GET, b"ar", opaque=6),
        store(REPLACE, b"ar2", b"6", opaque=7), store(REPLACEQ, b"ar2", b"7", opaque=8), store(ADDQ, b"ar2", b"8", opaque=9),
        frame(GET, b"ar2", opaque=10)],
    "append and prepend": [
        frame(APPEND, b"ap", b"1", opaque=1), frame(APPENDQ, b"ap", b"2", opaque=2), frame(PREPEND, b"ap", b"3", opaque=3),
        store(SET, b"ap", b"-", flags=7, opaque=4), frame(APPEND, b"ap", b"a", opaque=5), frame(PREPEND, b"ap", b"p", opaque=6),
        frame(APPENDQ, b"ap", b"b", opaque=7), frame(PREPENDQ, b"ap", b"q", opaque=8), frame(GET, b"ap", opaque=9)],
    "append compares": [
        store(SET, b"apc", b"-", opaque=1), with_cas(1, lambda cas: frame(APPEND, b"apc", b"a", cas=cas, opaque=2)),
        with_cas(1, lambda cas: frame(PREPEND, b"apc", b"p", cas=cas, opaque=3)), frame(GET, b"apc", opaque=4),
        frame(APPEND, b"apc2", b"a", cas=NO_CAS, opaque=5)],
    "set compares": [
        store(SET, b"c", b"1", opaque=1), with_cas(1, lambda cas: store(SET, b"c", b"2", cas=cas, opaque=2)),
        with_cas(1, lambda cas: store(SET, b"c", b"3", cas=cas, opaque=3)),
        with_cas(1, lambda cas: store(SETQ, b"c", b"4", cas=cas, opaque=4)),
        with_cas(2, lambda cas: store(REPLACE, b"c", b"5", cas=cas, opaque=5)), frame(GET, b"c", opaque=6),
        store(SET, b"c2", b"1", cas=NO_CAS, opaque=7), store(ADD, b"c2", b"1", cas=NO_CAS, opaque=8),
        store(REPLACE, b"c2", b"1", cas=NO_CAS, opaque=9), with_cas(6, lambda cas: store(ADD, b"c", b"6", cas=cas, opaque=10)),
        frame(GET, b"c", opaque=11)],
    "delete": [
        frame(DELETE, b"d", opaque=1), frame(DELETEQ, b"d", opaque=2), store(SET, b"d", b"1", opaque=3),
        frame(DELETE, b"d", cas=NO_CAS, opaque=4), with_cas(3, lambda cas: frame(DELETE, b"d", cas=cas, opaque=5)),
        frame(GET, b"d", opaque=6), store(SET, b"d", b"2", opaque=7), frame(DELETEQ, b"d", opaque=8), frame(GET, b"d", opaque=9)],
    "counting": [
        count(INCREMENT, b"n", 5, 100, 0xffffffff, opaque=1), count(INCREMENTQ, b"n", 5, 100, 0xffffffff, opaque=2),
        count(INCREMENT, b"n", 5, 100, 0, opaque=3), count(INCREMENT, b"n", 5, opaque=4), count(DECREMENT, b"n", 50, opaque=5),
        count(DECREMENT, b"n", 500, opaque=6), count(INCREMENT, b"n", 0xffffffffffffffff, opaque=7),
        count(INCREMENT, b"n", 3, opaque=8), count(INCREMENTQ, b"n", 1, opaque=9), count(DECREMENTQ, b"n", 1, opaque=10),
        frame(GET, b"n", opaque=11), count(DECREMENT, b"n2", 1, 7, 60, opaque=12), frame(GET, b"n2", opaque=13),
        count(INCREMENTQ, b"n3", 1, 7, 60, opaque=14), frame(GET, b"n3", opaque=15)],
    "counting compares": [
        store(SET, b"nc", b"10", opaque=1), count(INCREMENT, b"nc", cas=NO_CAS, opaque=2),
        with_cas(1, lambda cas: count(INCREMENT, b"nc", cas=cas, opaque=3)), frame(GET, b"nc", opaque=4),
        count(INCREMENT, b"nc2", 1, 5, 0, cas=NO_CAS, opaque=5)],
    "counting what is no number": [
        store(SET, b"nn", b"abc", opaque=1), count(INCREMENT, b"nn", opaque=2), count(DECREMENTQ, b"nn", opaque=3),
        store(SET, b"nn", b"", opaque=4), count(INCREMENT, b"nn", opaque=5), store(SET, b"nn", b"12 ", opaque=6),
        count(INCREMENT, b"nn", opaque=7), frame(GET, b"nn", opaque=8)],
    "touch and its kin": [
        timed(TOUCH, b"t", 10, opaque=1), timed(GAT, b"t", 10, opaque=2), timed(GATQ, b"t", 10, opaque=3),
        timed(GATK, b"t", 10, opaque=4), timed(GATKQ, b"t", 10, opaque=5), store(SET, b"t", b"value", flags=3, opaque=6),
        timed(TOUCH, b"t", 100, opaque=7), timed(GAT, b"t", 100, opaque=8), timed(GATQ, b"t", 100, opaque=9),
        timed(GATK, b"t", 100, opaque=10), timed(GATKQ, b"t", 0, opaque=11), frame(GET, b"t", opaque=12)],
    "flush": [
        store(SET, b"f", b"1", opaque=1), frame(FLUSH, opaque=2), frame(GET, b"f", opaque=3), store(SET, b"f", b"1", opaque=4),
        frame(FLUSH, extras=struct.pack(">I", 0), opaque=5), frame(GET, b"f", opaque=6), store(SET, b"f", b"1", opaque=7),
        frame(FLUSH, extras=struct.pack(">I", 1000), opaque=8), frame(GET, b"f", opaque=9), frame(FLUSHQ, opaque=10),
        frame(GET, b"f", opaque=11)],
    "noop, version": [frame(NOOP, opaque=1), frame(VERSION, opaque=2), frame(NOOP, cas=NO_CAS, opaque=0xffffffff)],
    "quit": [frame(QUIT, opaque=1)],
    "quit quietly": [frame(QUITQ, opaque=1)],
    "commands that do not exist": [frame(opcode, opaque=opcode) for opcode in (0x1b, 0x1f, 0x25, 0x30, 0x40, 0xff)],
    "authentication without any": [frame(LIST_MECHANISMS, opaque=1), frame(AUTH, b"PLAIN", b"\0u\0p", opaque=2), frame(STEP, b"PLAIN", b"\0u\0p", opaque=3)],
    "statistics of what is not known": [frame(STAT, b"nothing", opaque=1)],
    "statistics are reset": [frame(STAT, b"reset", opaque=1)],
    "a value that is too large": [
        store(SET, b"big", b"1", opaque=1), store(SET, b"big", b"x" * (1 << 20), opaque=2), frame(GET, b"big", opaque=3),
        store(ADD, b"big2", b"x" * (2 << 20), opaque=4), frame(APPEND, b"big3", b"x" * (2 << 20), opaque=5), frame(NOOP, opaque=6)],
    "large values": [
        store(SET, b"l1", b"a" * 300_000, flags=5, opaque=1), frame(GETK, b"l1", opaque=2), frame(GETQ, b"l1", opaque=3),
        store(SETQ, b"l1", b"b" * 900_000, opaque=4), frame(GET, b"l1", opaque=5), frame(APPEND, b"l1", b"c" * 50_000, opaque=6),
        frame(GET, b"l1", opaque=7), frame(APPEND, b"l1", b"d" * 500_000, opaque=8), timed(GAT, b"l1", 100, opaque=9)],
}

#: Frames that their command can't have: answered, then closed.
BAD = {
    **{f"opcode {opcode:02x} with {what}": bytes_
       for opcode in (*range(0x1b), TOUCH, GAT, GATQ, GATK, GATKQ)
       for what, bytes_ in {
           "extras of three": frame(opcode, b"k", extras=b"abc", opaque=9),
           "a long key": frame(opcode, b"k" * 251, extras=b"12345678", value=b"v", opaque=9),
           "lengths that do not fit": frame(opcode, b"key", body_length=1, opaque=9),
       }.items()
       if not (opcode == STAT and what == "a long key")},
    "get without a key": frame(GET, opaque=9), "get with a value": frame(GET, b"k", b"v", opaque=9),
    "set without extras": frame(SET, b"k", b"v", opaque=9), "set without a key": store(SET, b"", b"v", opaque=9),
    "noop with a key": frame(NOOP, b"k", opaque=9), "version with a body": frame(VERSION, value=b"v", opaque=9),
    "quit with a key": frame(QUIT, b"k", opaque=9), "flush with a key": frame(FLUSH, b"k", opaque=9),
    "append with extras": frame(APPEND, b"k", b"v", b"1234", opaque=9),
    "another magic behind a good one": frame(NOOP, opaque=1) + frame(NOOP, magic=0x81, opaque=9),
}


def built(item, names: CasNames) -> bytes:
    return item(names) if callable(item) else item


def same(arrangement, case: str, frames: list) -> None:
    said = []
    for which, server in enumerate((arrangement.ours, arrangement.peer)):
        names, answers = CasNames(), []
        with server.connect() as connection:
            assert connection.call(b"flush_all\r\n") == b"OK"
        for item in frames:
            answers += names.comparable(exchange(server, built(item, names)))
            if which == 0:
                arrangement.push_out()
        said.append(answers)
    assert said[0] == said[1], case


@pytest.mark.bounded(120)
@pytest.mark.parametrize("case", CASES)
def test_replies_are_memcacheds(arrangement, case):
    same(arrangement, case, CASES[case])


#: Not those that ask for CAS values of earlier replies, nor those that count: memcached pads numbers only when no reply
#: refers to the item any more.
PIPELINES = [case for case, frames in CASES.items() if not any(callable(item) for item in frames) and "counting" not in case]


@pytest.mark.parametrize("case", PIPELINES)
def test_as_one_pipeline(arrangement, case):
    frames = CASES[case]
    same(arrangement, case, [b"".join(frames)])


def test_bad_frames_are_refused(arrangement):
    for case, bad in BAD.items():
        ours, peer = (CasNames().comparable(exchange(server, bad)) for server in (arrangement.ours, arrangement.peer))
        assert ours == peer, case


def test_an_unknown_command_does_not_lose_the_frame(arrangement):
    """memcached counts the key twice; here what follows is served."""
    for opcode in (0x1b, 0x25, 0x80, 0xff):
        answers, closed = exchange(
            arrangement.ours, frame(opcode, b"key", b"value" * 100, b"extras", opaque=1) + frame(NOOP, opaque=2))
        assert [(a.status, a.value, a.opaque) for a in answers] == [(0x81, b"Unknown command", 1), (0, b"", 2)]
        assert not closed


def test_a_body_beyond_all_limits_is_refused_and_the_connection_closed(arrangement):
    """As memcached 1.6.45; 1.6.18 waits for it."""
    answers, closed = exchange(arrangement.ours, frame(SET, b"k", b"", b"12345678", body_length=(1 << 30) + 1, opaque=9))
    assert [(a.status, a.value, a.opaque) for a in answers] == [(4, b"Invalid arguments", 9)] and closed


def test_statistics_come_as_packets(arrangement):
    for topic in (b"", b"settings", b"items", b"slabs"):
        ours, _ = exchange(arrangement.ours, frame(STAT, topic, opaque=3))
        peer, _ = exchange(arrangement.peer, frame(STAT, topic, opaque=3))
        for answers in (ours, peer):
            assert (answers[-1].key, answers[-1].value, answers[-1].opaque) == (b"", b"", 3)
        assert all(a.status == 0 and a.opaque == 3 and a.opcode == STAT for a in ours)
        if topic in (b"", b"settings"):
            assert {a.key for a in peer} - {a.key for a in ours} <= {b""}, "names that memcached has and we have not"


def test_every_split(arrangement):
    """A frame may come in any two pieces."""
    if arrangement.is_cold:
        pytest.skip("the same bytes as in the others")
    stream = (store(SET, b"split", b"a value", flags=1, opaque=1) + frame(GETK, b"split", opaque=2)
              + count(INCREMENT, b"num", 1, 5, 0, opaque=3) + frame(APPEND, b"split", b"!", opaque=4)
              + frame(GETQ, b"none", opaque=5) + frame(NOOP, opaque=6))
    expected = None
    with arrangement.ours.connect() as control:
        for at in range(1, len(stream)):
            assert control.call(b"flush_all\r\n") == b"OK"
            with socket.create_connection(("127.0.0.1", arrangement.ours.port), timeout=20) as connection:
                connection.sendall(stream[:at])
                assert control.call(b"version\r\n").startswith(b"VERSION")
                connection.sendall(stream[at:])
                received = b""
                while not received.endswith(struct.pack(">IQ", 6, 0)):
                    data = connection.recv(65536)
                    assert data, at
                    received += data
            said = CasNames().comparable((replies(received), False))
            expected = expected or said
            assert said == expected, at


def random_frame(pick: random.Random, opaque: int) -> bytes:
    key = b"key%d" % pick.randrange(12)
    value = pick.choice([b"", b"v", b"12", b"9" * 19, b"x" * 100, bytes(pick.randrange(256) for _ in range(40))])
    # Far from any second's end, so that two clocks agree.
    expiry = pick.choice([0, 0, 0, 1000, 3_000_000_000])
    cas = pick.choice([0] * 9 + [NO_CAS])
    opcode = pick.choice([GET, GETQ, GETK, GETKQ, SET, SETQ, ADD, ADDQ, REPLACE, REPLACEQ, DELETE, DELETEQ, INCREMENT,
                          DECREMENT, APPEND, APPENDQ, PREPEND, PREPENDQ, TOUCH, GAT, GATQ, GATK, GATKQ, NOOP])
    if opcode in (SET, SETQ, ADD, ADDQ, REPLACE, REPLACEQ):
        return store(opcode, key, value, pick.randrange(1 << 32), expiry, cas=cas, opaque=opaque)
    if opcode in (INCREMENT, DECREMENT):
        # Replies alone: what memcached leaves behind depends on who refers to the item.
        return (count(opcode, b"number%d" % pick.randrange(5), pick.randrange(1 << 40), pick.randrange(100),
                      pick.choice([0, 1000, 0xffffffff]), opaque=opaque))
    if opcode in (APPEND, APPENDQ, PREPEND, PREPENDQ):
        return frame(opcode, key, value[:10], cas=cas, opaque=opaque)
    if opcode in (TOUCH, GAT, GATQ, GATK, GATKQ):
        return timed(opcode, key, expiry, opaque=opaque)
    if opcode == NOOP:
        return frame(NOOP, opaque=opaque)
    return frame(opcode, key, cas=cas if opcode in (DELETE, DELETEQ) else 0, opaque=opaque)


@pytest.mark.bounded(120)
@pytest.mark.parametrize("seed", range(1, 4))
def test_random_mixes(arrangement, seed):
    pick = random.Random(seed)
    rounds, size = (12, 60) if arrangement.is_cold else (60, 200)
    if harness.LONG:
        rounds *= 20
    names = (CasNames(), CasNames())
    for server in (arrangement.ours, arrangement.peer):
        with server.connect() as connection:
            assert connection.call(b"flush_all\r\n") == b"OK"
    for round_ in range(rounds):
        stream = b"".join(random_frame(pick, opaque) for opaque in range(size))
        ours = names[0].comparable(exchange(arrangement.ours, stream))
        peer = names[1].comparable(exchange(arrangement.peer, stream))
        assert ours == peer, f"seed {seed}, round {round_}"
        arrangement.push_out()


def test_without_cas_every_value_is_zero_and_none_matches(tmp_path):
    """-C, in all three protocols."""
    servers = [harness.Server(tmp_path / "ours", "-C", cold=False).start(),
               harness.Server(tmp_path / "peer", "-C", binary=harness.PEER).start()]
    frames = [store(SET, b"c", b"1", opaque=1), frame(GET, b"c", opaque=2), store(SET, b"c", b"2", cas=5, opaque=3),
              frame(DELETE, b"c", cas=5, opaque=4), count(INCREMENT, b"c", cas=5, opaque=5), count(INCREMENT, b"c", opaque=6),
              frame(APPEND, b"c", b"0", cas=5, opaque=7), frame(APPEND, b"c", b"0", opaque=8)]
    lines = [b"set a 0 0 1\r\nx\r\n", b"gets a\r\n", b"cas a 0 0 1 5\r\ny\r\n", b"cas a 0 0 1 0\r\ny\r\n", b"mg a c v\r\n",
             b"ms a 1 c\r\ny\r\n", b"ms a 1 C5\r\nz\r\n", b"md a C5\r\n", b"ma n N0 c\r\n", b"ma n C5\r\n"]
    try:
        said = []
        for server in servers:
            binary = [reply for each in frames for reply in exchange(server, each)[0]]
            with server.connect() as connection:
                text = [in_turn(connection, line) for line in lines]
            said.append((binary, text))
        for ours, peer in zip(said[0][0] + said[0][1], said[1][0] + said[1][1]):
            assert ours == peer
        assert all(reply.cas == 0 for reply in said[0][0])
    finally:
        for server in servers:
            server.kill()


def in_turn(connection, line: bytes) -> bytes:
    """All that is answered to one command."""
    connection.send(line + b"version\r\n")
    received = b""
    while b"VERSION" not in received or not received.endswith(b"\r\n"):
        received += connection.socket.recv(65536)
    return received[:received.index(b"VERSION")]
