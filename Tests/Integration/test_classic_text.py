"""The classic text protocol, byte for byte as memcached speaks it.

The same commands go to a real memcached and to ours, and the replies have to be equal. They are compared one command
at a time, and ours must say the same to all of them as one pipeline: a pipeline to memcached shows accidents of its
own (a get that fails drops earlier replies; a value that a reply still refers to isn't padded by decr). CAS values are
named by the order of their appearance, since no two servers count alike. Every case runs with RAM only, with both tiers, and with
so little RAM that each item has left it before the next command arrives.

The reference is memcached 1.6.45. The one that Debian ships (1.6.18) differs from it in the places that
`NEWER_CASES` lists; there the expected bytes are written out.
"""

from __future__ import annotations

import random
import time

import pytest

import server as harness
from arrangements import ARRANGEMENTS, KIB, in_pieces, lines, make_arrangement, put
from differential import exchange
from server import Connection, Server

NOW = int(time.time())


# -- the three arrangements --------------------------------------------------------------------------------------

@pytest.fixture(scope="module", params=ARRANGEMENTS)
def arrangement(request, tmp_path_factory):
    """Servers live for the whole module: a start per case would take most of the time."""
    made = make_arrangement(request.param, tmp_path_factory.mktemp(request.param))
    yield made
    made.end()


# -- cases -------------------------------------------------------------------------------------------------------

LONGEST = "k" * 250
TOO_LONG = "k" * 251

CASES: dict[str, list[bytes]] = {
    "get of what is not there": lines("get a", "gets a", "get a b c", "gets a b c"),
    "set and get": [put("a", "hello", flags=5), *lines("get a", "gets a", "get a a", "get b a c a")],
    "an empty value": [put("a", ""), *lines("get a", "gets a")],
    "a value of line ends": [put("a", "\r\n\r\n"), put("b", "END\r\nVALUE a 0 3\r\n"), *lines("get a b")],
    "a value of every byte": [put("a", bytes(range(256))), *lines("get a")],
    "set replaces value and flags": [put("a", "one", flags=1), put("a", "three", flags=3), *lines("gets a")],
    "add only once": [put("a", "one", "add"), put("a", "two", "add"), *lines("gets a")],
    "add after delete": [put("a", "one", "add"), *lines("delete a"), put("a", "two", "add"), *lines("get a")],
    "replace only what is there": [put("a", "one", "replace"), *lines("get a"), put("a", "two"),
                                   put("a", "three", "replace", flags=9), *lines("gets a")],
    "append and prepend": [put("a", "x", "append"), put("a", "x", "prepend"), *lines("get a"),
                           put("a", "middle", flags=7), put("a", "-end", "append", flags=1),
                           put("a", "start-", "prepend", flags=2), *lines("gets a"), put("a", "", "append"),
                           put("a", "", "prepend"), *lines("gets a")],
    "append keeps the expiry": [put("a", "x", expiry=-1), put("a", "y", "append"), *lines("get a"),
                                put("b", "x", expiry=1000), put("b", "y", "append", expiry=-1), *lines("get b")],
    "cas": [put("a", "one"), *lines("gets a"), put("a", "two", "cas", more=" <cas a>"), *lines("gets a"),
            put("a", "three", "cas", more=" 1"), *lines("gets a"), put("b", "x", "cas", more=" 1"), *lines("get b")],
    "cas twice with one value": [put("a", "one"), *lines("gets a"), put("a", "two", "cas", more=" <cas a>"),
                                 put("a", "three", "cas", more=" <cas a>"), *lines("gets a")],
    "cas noreply": [put("a", "one"), *lines("gets a"), put("a", "two", "cas", more=" <cas a> noreply"),
                    *lines("gets a"), put("a", "three", "cas", more=" 1 noreply"), *lines("gets a")],
    "cas with the largest number": [put("a", "x", "cas", more=" 18446744073709551615"), *lines("get a")],
    "a CAS changes with every change": [
        put("a", "1"), *lines("gets a", "incr a 1", "gets a", "touch a 100", "gets a", "gat 100 a", "gats 100 a"),
        put("a", "0", "append"), *lines("gets a"), put("a", "1", "prepend"), *lines("gets a"), put("a", "5"),
        *lines("gets a", "decr a 1", "gets a")],
    "incr and decr": [put("a", "10"), *lines("incr a 5", "decr a 7", "get a", "incr a 0", "decr a 0", "get a",
                                             "incr b 1", "decr b 1", "get b")],
    "incr grows": [put("a", "99", flags=3), *lines("incr a 1", "gets a", "incr a 999999999", "gets a")],
    "incr up to the end": [put("a", "9223372036854775800"), *lines("incr a 7", "get a", "incr a 18446744073709551615",
                                                                   "get a")],
    "decr stops at nothing": [put("a", "5"), *lines("decr a 6", "get a", "decr a 18446744073709551615", "get a")],
    "decr pads": [put("a", "1000", flags=2), *lines("decr a 1", "gets a", "incr a 0", "gets a", "incr a 1", "gets a",
                                                    "decr a 995", "gets a", "incr a 1", "gets a")],
    "incr by bad numbers": [put("a", "1"), *lines(
        "incr a abc", "incr a -1", "incr a 18446744073709551615", "get a",
        "incr a 18446744073709551616", "incr a 1.5", "incr a 0x10", "incr a 1a", "incr a 007", "get a",
        "decr a abc", "decr a -1", "decr a 18446744073709551616", "incr a 1 2", "get a")],
    "incr of what is no number": [
        put("a", "abc"), *lines("incr a 1", "decr a 1", "get a"), put("b", ""), *lines("incr b 1", "get b"),
        put("c", "12x"), *lines("incr c 1", "get c"), put("d", "12 "), *lines("incr d 1", "get d"),
        put("e", " 12"), *lines("incr e 1", "get e"), put("f", "-5"), *lines("incr f 1", "get f"),
        put("g", "007"), *lines("incr g 1", "get g"), put("i", "1" * 21), *lines("incr i 1", "get i"), put("j", "18446744073709551616"),
        *lines("incr j 1", "get j"), put("l", "1.5"), *lines("incr l 1", "get l"),
        put("m", "5\r\n"), *lines("incr m 1", "get m"), put("o", "5\x00and more"), *lines("incr o 1", "get o"),
        put("p", "5\x0band more"), *lines("incr p 1", "get p"), put("q", "\t5"), *lines("incr q 1", "get q"),
        put("r", "\x0b5"), *lines("incr r 1", "get r"), put("s", "+5"), *lines("incr s 1", "get s"), put("n", "0" * 30), *lines("incr n 1", "get n")],
    "incr noreply": [put("a", "1"), *lines("incr a 5 noreply", "decr a 2 noreply", "get a", "incr b 1 noreply",
                                           "incr a abc noreply", "get a")],
    "delete": [put("a", "x"), *lines("delete a", "delete a", "get a")],
    "delete with a time": [put("a", "x"), *lines("delete a 0", "delete a 0"), put("a", "x"),
                           *lines("delete a 0 noreply", "get a"), put("a", "x"),
                           *lines("delete a noreply", "get a", "delete a noreply")],
    "touch": [put("a", "x"), *lines("touch a 0", "touch b 0", "touch a 100", "get a", "touch a -1", "get a"),
              put("a", "x"), *lines("touch a 0 noreply", "touch b 0 noreply", "touch a abc", "touch a 100 2",
                                    "get a", "touch a -1 noreply", "get a")],
    "gat and gats": [put("a", "x", flags=4), put("b", "y"), *lines(
        "gat 100 a", "gats 100 a", "gat 100 a b c", "gats 100 c b a", "gat 0 c", "gat -1 a", "get a b",
        "gat abc b", "gats abc b", "get b", "gats -1 b b", "get b")],
    "expiry in the past": [put("a", "x", expiry=-1), *lines("get a"), put("b", "x", expiry=NOW - 10), *lines("get b"),
                           put("c", "x", expiry=2592001), *lines("get c"), put("d", "x", expiry=-2147483648),
                           *lines("get d"), put("a", "y", "add"), *lines("get a")],
    "expiry in the future": [put("a", "x", expiry=100), put("b", "x", expiry=NOW + 1000), put("c", "x", expiry=2592000),
                             put("d", "x", expiry=2147483647), *lines("get a b c d")],
    "an expired item is not there": [
        put("a", "x"), *lines("touch a -1"), put("a", "y", "replace"), put("a", "y", "append"),
        put("a", "y", "prepend"), put("a", "y", "cas", more=" 1"),
        *lines("incr a 1", "decr a 1", "touch a 100", "delete a", "gat 100 a", "get a"), put("a", "z", "add"),
        *lines("get a")],
    "the largest flags": [b"set a 4294967295 0 2\r\nxy\r\n", b"set b 65536 0 2\r\nxy\r\n",
                          b"set c 4294967296 0 2\r\nxy\r\n", *lines("get a b")],
    "bad lengths": [*[b"set a 0 0 %s\r\nxy\r\n" % length for length in (
        b"abc", b"-1", b"2x", b"2147483648", b"99999999999999999999")], *lines("get a")],
    "words too many": [b"set a 0 0 1 2\r\nx\r\n", b"set a 0 0 1 x\r\nx\r\n", *lines("get a"),
                       b"cas a 0 0 1 1 x\r\nx\r\n", *lines("get a", "incr a 1 1")],
    "unknown commands": lines("foo", "foo bar", "GET a", "Set a 0 0 1", "getx a", "sett a 0 0 1", "ab", "abc", "get\x00 a", "delete\ta", "\u0080\u00ff"),
    "lines that end in a bare newline": [b"set a 0 0 1\nx\r\n", b"get a\n", b"foo\n", b"gets a b\n",
                                         b"delete a\n", b"incr a 1\n"],
    "spaces": [put("a", "x"), *lines("get  a", "get a ", "get   a   b  ", "delete  a ", "get a"),
               b"set  a  0  0  1 \r\nx\r\n", *lines("get a", "incr  a  1", "touch  a  0", "gat  0  a", "verbosity  0")],
    "odd bytes in a key": [put("\u00fc\u4e16", "x"), *lines("get \u00fc\u4e16"), put("a\tb", "x"), *lines("get a\tb"),
                           b"set \x80\xff 0 0 1\r\nx\r\n",
                           b"get \x80\xff\r\n", b"set a\rb 0 0 1\r\nx\r\n", b"get a\rb\r\n", b"get a\r\r\n"],
    "the longest key": [put(LONGEST, "1"), *lines(
        f"get {LONGEST}", f"gets {LONGEST}", f"gat 0 {LONGEST}", f"incr {LONGEST} 1", f"touch {LONGEST} 0"),
        put(LONGEST, "5", "append"), *lines(f"get {LONGEST}", f"delete {LONGEST}", f"get {LONGEST}")],
    "a key too long": [*lines(f"get {TOO_LONG}", f"gets {TOO_LONG}", f"gat 0 {TOO_LONG}", f"incr {TOO_LONG} 1",
                              f"decr {TOO_LONG} 1", f"touch {TOO_LONG} 0", f"delete {TOO_LONG}"),
                       put("a", "x"), *lines(f"get a {TOO_LONG}", f"get a {TOO_LONG} a", f"get {TOO_LONG} a",
                                             f"gets a {TOO_LONG} a")],
    "noreply": [put("a", "x", more=" noreply"), put("a", "y", "add", more=" noreply"), *lines("get a"),
                put("a", "z", "replace", more=" noreply"), put("a", "+", "append", more=" noreply"),
                put("a", "-", "prepend", more=" noreply"), *lines("get a", "delete a noreply", "get a"),
                *lines("verbosity 0 noreply", "flush_all noreply", "flush_all 0 noreply", "touch a 0 noreply")],
    "noreply in odd places": [put("a", "x"), *lines("get noreply", "get a noreply", "gat 0 noreply",
                                                    "incr a noreply", "touch a noreply", "version noreply", "get a")],
    "a key called noreply": [put("noreply", "x"), *lines("get noreply", "get a noreply b")],
    "flush_all": [put("a", "x"), put("b", "y"), *lines("flush_all", "get a b"), put("a", "z"),
                  *lines("get a b", "flush_all 0", "get a"), put("a", "z"), *lines("flush_all -1", "get a"),
                  put("a", "z"), *lines("flush_all abc", "get a")],
    "flush_all later changes nothing now": [put("a", "x"), *lines("flush_all 1000", "get a", "flush_all", "get a")],
    "version and verbosity": lines("version", "version 1", "verbosity 0", "verbosity abc", "verbosity 0 0", "verbosity -1",
                                   "verbosity 1"),
    "a bad data chunk": [b"set a 0 0 3\r\nabc and more\r\n", *lines("get a"), put("b", "x"),
                         b"set b 0 0 3\r\nab\r\nmore\r\n", *lines("get b"), b"set d 0 0 0\r\nfive5\r\n",
                         *lines("get d")],
    "a bad data chunk of each command": [
        put("a", "x"), b"add a 0 0 3\r\nabc and more\r\n", b"replace a 0 0 3\r\nabc and more\r\n",
        b"append a 0 0 3\r\nabc and more\r\n", b"prepend a 0 0 3\r\nabc and more\r\n",
        b"cas a 0 0 3 1\r\nabc and more\r\n", b"set a 0 0 3 noreply\r\nabc and more\r\n", *lines("get a")],
    "many keys in one line": [
        *[put(f"m{i}", f"value {i}", flags=i) for i in range(0, 100, 3)],
        *lines("get " + " ".join(f"m{i}" for i in range(100)), "gets " + " ".join(f"m{i}" for i in range(100)),
               "gat 0 " + " ".join(f"m{i}" for i in range(100)), "get " + " ".join(["m0", "m1"] * 200))],
}

BAD_LINE = b"CLIENT_ERROR bad command line format\r\n"
BAD_TIME = b"CLIENT_ERROR invalid exptime argument\r\n"
BAD_DELTA = b"CLIENT_ERROR invalid numeric delta argument\r\n"
BAD_CHUNK = b"CLIENT_ERROR bad data chunk\r\n"
ERROR = b"ERROR\r\n"


def answered(reply: bytes, *texts: str) -> list[tuple[bytes, bytes]]:
    """Each of the lines with the one reply that they all get."""
    return [(text.encode() + b"\r\n", reply) for text in texts]


#: What 1.6.45 answers otherwise than Debian's 1.6.18, by the reason: commands and their exact replies, in order.
#: One difference is left out on purpose: 1.6.45 sends an empty line after the error for a get with too long a key.
NEWER_CASES: dict[str, list[tuple[bytes, bytes]]] = {
    "a word that is missing has the error of a bad line": answered(
        BAD_LINE, "set", "set a", "set a 0", "set a 0 0", "add a 0 0", "replace a", "append a 0 0", "prepend",
        "cas a 0 0", "get", "gets", "get ", "gets ", "get  ", "incr", "incr a", "decr", "decr a", "touch", "touch a",
        "gat", "gats", "gat 0", "gats 0", "delete", "verbosity"),
    "a line too short to be a command is a bad line": [
        *answered(BAD_LINE, "", "a"), (b"\n", BAD_LINE), (b"a\n", BAD_LINE), *answered(ERROR, "ab")],
    "bad flags or times take the value with them": [
        *[(b"set a %s 2\r\nxy\r\n" % words, BAD_LINE) for words in (
            b"abc 0", b"-1 0", b"18446744073709551616 0", b"1x 0", b"0 abc", b"0 1.5", b"0 -")],
        *answered(b"END\r\n", "get a")],
    "a bad CAS value takes the value with it": [
        *[(put("a", "x", "cas", more=more), BAD_LINE) for more in ("", " abc", " -1", " 99999999999999999999999")],
        *answered(b"END\r\n", "get a")],
    "too long a key takes the value with it": [
        (put(TOO_LONG, "x" * 20, command, more=more), b"" if "noreply" in more else BAD_LINE) for command, more in [
            ("set", ""), ("add", ""), ("replace", ""), ("append", ""), ("prepend", ""), ("cas", " 1"),
            ("set", " noreply")]],
    "a bad length doesn't": [(b"set a 0 0 %s\r\nxy\r\n" % length, BAD_LINE + ERROR) for length in (
        b"", b"4294967298")] + [(b"set a  0 2\r\nxy\r\n", BAD_LINE + ERROR)],
    "times have 32 bits": [
        (put("a", "x"), b"STORED\r\n"), *answered(BAD_TIME, "touch a 99999999999", "flush_all 99999999999"),
        *answered(BAD_LINE, "verbosity 99999999999"), *answered(b"VALUE a 0 1\r\nx\r\nEND\r\n", "get a")],
    "delete takes any second word": [
        (put("a", "x"), b"STORED\r\n"), *answered(b"DELETED\r\n", "delete a 1"),
        *answered(b"NOT_FOUND\r\n", "delete a 0 0", "delete a abc"), *answered(b"", "delete a 5 noreply")],
    "incr wraps, also where 1.6.18 takes a sign in what follows in its memory for the number's own": [
        (put("a", "18446744073709551615"), b"STORED\r\n"), (b"incr a 1\r\n", b"0\r\n"),
        (put("a", "18446744073709551610"), b"STORED\r\n"), (b"incr a 10\r\n", b"4\r\n"),
        (b"get a\r\n", b"VALUE a 0 20\r\n4                   \r\nEND\r\n"),
        (put("b", "1" * 20), b"STORED\r\n"), (b"incr b 1\r\n", b"1" * 19 + b"2\r\n"),
        (b"decr b 11111111111111111112\r\n", b"0\r\n")],
    "a delta has no sign": [(put("a", "1"), b"STORED\r\n"), *answered(BAD_DELTA, "incr a +1", "decr a +1")],
    "touch takes more words": [(put("a", "1"), b"STORED\r\n"), *answered(b"TOUCHED\r\n", "touch a 0 0 0")],
    "noreply counts wherever it is last": [
        (b"set a 0 0 1 noreply noreply\r\nx\r\n", b""), (put("noreply", "x"), b"STORED\r\n"),
        *answered(b"", "foo noreply", "delete noreply"), *answered(b"END\r\n", "get noreply")],
    "a command starts its line": [(put("a", "x"), b"STORED\r\n"), *answered(ERROR, " get a", "  get a")],
    "a zero byte is part of a key": [(b"set a\x00b 0 0 1\r\nx\r\n", b"STORED\r\n"),
                                     (b"get a\x00b\r\n", b"VALUE a\x00b 0 1\r\nx\r\nEND\r\n")],
    "what is left of a bad chunk may be too short": [
        (b"%s a 0 0 3\r\nabcde\r\n" % command, BAD_CHUNK + BAD_LINE) for command in (
            b"set", b"add", b"replace", b"append", b"prepend")] + [
        (b"cas a 0 0 3 1\r\nabcde\r\n", BAD_CHUNK + BAD_LINE), (b"set a 0 0 3 noreply\r\nabcde\r\n", BAD_LINE),
        (b"set b 0 0 3\r\nab\r\ncd\r\n", BAD_CHUNK + BAD_LINE), (b"set d 0 0 0\r\nx\r\n", BAD_CHUNK + BAD_LINE)],
}

#: Cases with values of the largest kind, for servers with `-I 2m`. Only for those whose RAM can hold them.
LARGE_CASES: dict[str, list[bytes]] = {
    "a large value": [put("a", b"v" * (1536 * KIB), flags=3), *lines("gets a", "get a a"),
                      put("a", "end", "append"), put("a", "start", "prepend"), *lines("gets a", "touch a 0", "delete a",
                                                                                      "get a")],
    "a value over the limit": [put("a", "x"), put("a", b"v" * (2048 * KIB)), *lines("get a"), put("b", "x"),
                               put("b", b"v" * (3000 * KIB), "add"), *lines("get b"),
                               put("b", b"v" * (3000 * KIB), "replace"), *lines("get b")],
    "a value over the limit, noreply": [put("a", "x"), put("a", b"v" * (2048 * KIB), more=" noreply"),
                                        *lines("get a")],
    "append past the limit": [put("a", b"v" * (1536 * KIB)), put("a", b"v" * (1000 * KIB), "append"), *lines("get a")],
    "a pipeline of large values": [put(f"a{i}", bytes([65 + i]) * (100 * KIB)) for i in range(20)]
    + lines("get " + " ".join(f"a{i}" for i in range(20))),
}

#: The same, but the server may close the connection: nothing is sent after these.
CLOSING_CASES: dict[str, bytes] = {
    "quit": b"set a 0 0 1\r\nx\r\nget a\r\nquit\r\nget a\r\n",
    "quit with words": b"get a\r\nquit now\r\n",
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "half a command at the end": b"set a 0 0 5\r\nhello\r\nget a\r\nget",
    # Not here: a connection that ends while a refused value is being skipped. memcached then forgets the replies it
    # already owes; ours sends them.
    "nothing": b"",
    "the end of input straight after a pipeline": put("a", "hello") + b"get a\r\n" * 200,
}


@pytest.mark.parametrize("case", CASES)
def test_replies_are_those_of_memcached(arrangement, case):
    arrangement.run(case, CASES[case])


@pytest.mark.parametrize("case", NEWER_CASES)
def test_replies_are_those_of_the_newer_memcached(arrangement, case):
    arrangement.fresh_pair()
    for command, expected in NEWER_CASES[case]:
        assert exchange(arrangement.ours, command) == expected, command
        arrangement.push_out()


@pytest.mark.parametrize("case", CLOSING_CASES)
def test_a_connection_that_ends_is_answered_first(arrangement, case):
    arrangement.fresh_pair().compare(CLOSING_CASES[case], case, end_of_input=True)


@pytest.fixture(scope="module", params=ARRANGEMENTS[:2])
def large_arrangement(request, tmp_path_factory):
    made = make_arrangement(request.param, tmp_path_factory.mktemp("large"), "-I", "2m")
    yield made
    made.end()


@pytest.mark.parametrize("case", LARGE_CASES)
def test_large_values_are_answered_as_by_memcached(large_arrangement, case):
    large_arrangement.run(case, LARGE_CASES[case])


# -- splits ------------------------------------------------------------------------------------------------------

STREAM = b"".join([
    put("s1", "hello\r\nworld", flags=12), put("s2", "1", more=" noreply"), b"get s1 s2 s3\r\n", b"incr s2 41\r\n",
    put("s1", "!", "append"), put("s1", ">", "prepend"), b"gets s1\r\n", b"touch s1 100\r\n", b"gat 0 s1 s2\r\n",
    b"set s4 0 0 3\r\nbad data\r\n", b"delete s2\r\n", b"foo\r\n", put("s1", "x", "cas", more=" 1"), b"get s1\n",
    b"decr s9 1\r\n", b"version\r\n", b"get s1 s2 s3 s4\r\n"])


@pytest.fixture(scope="module", params=ARRANGEMENTS[:2])
def single_worker(request, tmp_path_factory):
    """A server with one worker: when it has answered on one connection, it has read what came before on another."""
    options = ["--cold-limit", "1G"] if request.param == "tiers" else []
    server = Server(tmp_path_factory.mktemp("split"), *options, cold=request.param == "tiers", threads=1).start()
    yield server
    server.kill()


def without_cas(data: bytes) -> bytes:
    """The replies to STREAM with the one CAS value in them left out."""
    return b"\r\n".join(b" ".join(words[:4]) if len(words := line.split(b" ")) == 5 and words[0] == b"VALUE" else line
                        for line in data.split(b"\r\n"))


@pytest.mark.bounded(120)
def test_a_stream_may_be_split_at_any_byte(single_worker):
    expected = without_cas(in_pieces(single_worker, [STREAM]))
    for at in range(1, len(STREAM)):
        found = without_cas(in_pieces(single_worker, [STREAM[:at], STREAM[at:]]))
        assert found == expected, f"split at byte {at}, after {STREAM[max(0, at - 20):at]!r}"


def test_a_stream_may_come_byte_by_byte(single_worker):
    expected = without_cas(in_pieces(single_worker, [STREAM]))
    assert without_cas(in_pieces(single_worker, [STREAM[i:i + 1] for i in range(len(STREAM))])) == expected


def test_a_very_long_multiget_is_answered(single_worker):
    keys = [f"long-multiget-key-{i:06}" for i in range(20_000)]
    with single_worker.connect() as connection:
        for key in keys[::1000]:
            connection.set(key, key.encode())
        found = connection.get_all(keys)
        assert {key: value for key, (value, _, _) in found.items()} == {key: key.encode() for key in keys[::1000]}


def test_an_endless_line_closes_the_connection(single_worker):
    with single_worker.connect() as connection:
        with pytest.raises(OSError):
            for _ in range(1000):
                connection.send(b"x" * 4096)
                if connection.socket.recv(1, 0x40 | 0x2) == b"":  # MSG_DONTWAIT | MSG_PEEK
                    raise ConnectionError("closed")
    with single_worker.connect() as connection:
        assert connection.call(b"version\r\n").startswith(b"VERSION")


# -- time --------------------------------------------------------------------------------------------------------

def wait_until_gone(connection: Connection, keys: list[str], timeout: float) -> dict[str, float]:
    """key -> seconds until it was no longer there."""
    start, gone = time.monotonic(), {}
    while len(gone) < len(keys):
        found = connection.get_all(keys)
        for key in keys:
            if key not in found:
                gone.setdefault(key, time.monotonic() - start)
        assert time.monotonic() - start < timeout, f"still there: {found.keys()}"
        time.sleep(0.02)
    return gone


def test_items_expire_at_their_time(arrangement):
    with arrangement.ours.connect() as connection:
        connection.call(b"flush_all\r\n")
        connection.set("relative", b"x", expiry=3)
        connection.set("absolute", b"x", expiry=int(time.time()) + 3)
        connection.set("stays", b"x", expiry=300)
        for command in (b"set touched 0 0 1\r\nx\r\n", b"touch touched 3\r\n", b"set gatted 0 0 1\r\nx\r\n"):
            connection.call(command)
        assert connection.get_all(["3", "gatted"], "gat")
        arrangement.push_out()
        gone = wait_until_gone(connection, ["relative", "absolute", "touched", "gatted"], timeout=8)
        assert all(1.5 < seconds < 5 for seconds in gone.values()), gone
        assert connection.get("stays") == b"x"


def test_a_later_flush_takes_what_was_stored_before_it(arrangement):
    """memcached's rule: at the moment given, everything that was last stored before it goes."""
    servers = (arrangement.ours, arrangement.peer)
    connections = [server.connect() for server in servers]
    for connection in connections:
        assert connection.call(b"flush_all\r\n") == b"OK"
        connection.set("before", b"x")
        assert connection.call(b"flush_all 3\r\n") == b"OK"
        connection.set("between", b"x")
        assert connection.get("before") == b"x"
    arrangement.push_out()
    gone = [wait_until_gone(connection, ["before", "between"], timeout=8) for connection in connections]
    assert all(1 < seconds < 5 for seconds in gone[0].values()), gone
    for connection in connections:
        connection.close()
    # memcached also drops what is stored within the second of the flush; nobody needs that.
    if not harness.is_memcached(arrangement.ours.binary):
        with arrangement.ours.connect() as connection:
            connection.set("after", b"x")
            assert connection.get("after") == b"x"


# -- statistics --------------------------------------------------------------------------------------------------

GENERAL = """pid uptime time version pointer_size rusage_user rusage_system max_connections curr_connections
total_connections cmd_get cmd_set cmd_flush cmd_touch get_hits get_misses get_expired get_flushed delete_misses
delete_hits incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits touch_misses
bytes_read bytes_written limit_maxbytes threads bytes curr_items total_items evictions reclaimed""".split()
COUNTED = """cmd_get cmd_set cmd_flush cmd_touch get_hits get_misses delete_misses delete_hits incr_misses incr_hits
decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits touch_misses get_expired""".split()
SETTINGS = "maxbytes maxconns tcpport udpport inter verbosity evictions num_threads item_size_max".split()


def test_statistics_have_the_names_of_memcached(arrangement):
    with arrangement.ours.connect() as ours, arrangement.peer.connect() as peer:
        for which, names in (("", GENERAL), ("settings", SETTINGS)):
            known, found = peer.statistics(which), ours.statistics(which)
            assert [name for name in names if name not in known] == []
            assert [name for name in names if name not in found] == []
        assert found["item_size_max"] == known["item_size_max"]
        ours.set("a", b"x")
        assert any(name.startswith("items:") and name.endswith(":number") for name in ours.statistics("items"))
        assert ours.call(b"stats reset\r\n") == b"RESET"


def test_statistics_count_what_memcached_counts(arrangement):
    commands = b"".join([
        put("a", "1"), put("b", "x"), *lines("get a b c", "gets a", "delete b", "delete b", "incr a 1", "incr z 1"),
        *lines("decr a 1", "decr z 1", "touch a 100", "touch z 100", "gat 100 a z"),
        put("a", "1", "cas", more=" 1"), put("z", "1", "cas", more=" 1"), put("e", "x", expiry=-1), *lines("get e"),
        put("a", "2", "add"), put("a", "3", "replace"), put("a", "4", "append"), *lines("get a")])
    counts = []
    for server in (arrangement.ours, arrangement.peer):
        with server.connect() as connection:
            connection.call(b"flush_all\r\n")
            exchange(server, b"")
            before = connection.statistics()
            exchange(server, commands)
            after = connection.statistics()
        counts.append({name: int(after[name]) - int(before[name]) for name in COUNTED})
    assert counts[0] == counts[1]


# -- random mixes ------------------------------------------------------------------------------------------------

KEYS = [f"key{i}" for i in range(8)]


def random_value(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.4:
        return b"%d" % rng.choice([0, 1, 9, 10, 99, 100, rng.randrange(10**6), rng.randrange(10**15)])
    if kind < 0.9:
        return rng.randbytes(rng.randrange(40))
    return rng.randbytes(rng.choice([100, 500, 1000, 3000]))


def random_command(rng: random.Random) -> bytes:
    key = rng.choice(KEYS)
    noreply = " noreply" if rng.random() < 0.15 else ""
    expiry = rng.choice([0, 0, 0, 0, 0, 100, 2592000, NOW + 5000, -1, NOW - 100])
    flags = rng.choice([0, 0, 1, 255, 65535, 4294967295])
    kind = rng.choices(
        ["set", "add", "replace", "append", "prepend", "cas", "get", "gets", "gat", "gats", "incr", "decr", "delete",
         "touch", "flush_all", "broken"],
        [14, 5, 5, 5, 5, 8, 14, 8, 3, 3, 8, 8, 6, 4, 0.3, 2])[0]
    if kind in ("set", "add", "replace", "append", "prepend"):
        return put(key, random_value(rng), kind, flags, expiry, noreply)
    if kind == "cas":
        return put(key, random_value(rng), kind, flags, expiry, f" <cas {key}>{noreply}")
    if kind in ("get", "gets"):
        return f"{kind} {' '.join(rng.choices(KEYS, k=rng.choice([1, 1, 2, 8])))}\r\n".encode()
    if kind in ("gat", "gats"):
        return f"{kind} {expiry} {' '.join(rng.choices(KEYS, k=rng.choice([1, 2, 3])))}\r\n".encode()
    if kind in ("incr", "decr"):
        return f"{kind} {key} {rng.choice([0, 1, 5, 99, 10**6, 10**15])}{noreply}\r\n".encode()
    if kind == "delete":
        return f"delete {key}{rng.choice(['', '', ' 0'])}{noreply}\r\n".encode()
    if kind == "touch":
        return f"touch {key} {expiry}{noreply}\r\n".encode()
    if kind == "flush_all":
        return f"flush_all{rng.choice(['', ' 0'])}{noreply}\r\n".encode()
    return rng.choice([b"foo\r\n", f"set {key} 0 0 3\r\nlonger-than-that\r\n".encode(), f"incr {key} x\r\n".encode(),
                       f"touch {key} x\r\n".encode()])


COMMANDS = {"ram": 120_000, "tiers": 120_000, "cold": 8_000}


@pytest.mark.bounded(3600 if harness.LONG else 400)
@pytest.mark.parametrize("seed", [1, 2, 3] if harness.LONG else [1])
def test_random_commands_are_answered_as_by_memcached(arrangement, seed, say):
    rng = random.Random(seed)
    pair = arrangement.fresh_pair()
    every_key = f"gets {' '.join(KEYS)}\r\n".encode()
    done, total = 0, COMMANDS[arrangement.name] * (10 if harness.LONG else 1)
    start = time.monotonic()
    while done < total:
        count = min(rng.choice([1, 5, 20, 40] if arrangement.is_cold else [1, 10, 100, 1000]), total - done)
        pair.compare(every_key, f"seed {seed}, before command {done}")
        arrangement.push_out()
        pair.compare_pipeline([random_command(rng) for _ in range(count)], f"seed {seed}, commands from {done}")
        done += count
    pair.compare(every_key, f"seed {seed}, at the end")
    say(f"{arrangement.name}, seed {seed}: {done} commands in {time.monotonic() - start:.1f} s")
