"""The meta commands, byte for byte as memcached speaks them.

As for the classic protocol the same commands go to a memcached and to ours, and the replies have to be equal, once CAS
values are named by their order and times to live may differ by the ticks of two clocks. Every case has keys of its own,
so that in the arrangement `cold`, where each item has left RAM before the next command, all cases go through one step
after the other together.

The reference is memcached 1.6.45. Where Debian's (1.6.18) differs, its replies stand in `meta_newer.json`, which
`recorded.py` writes. With `MEMCACHED` naming a 1.6.45 the comparison is with that one alone.
"""

from __future__ import annotations

import base64
import random
import re
import time
import zlib
from dataclasses import dataclass

import pytest

import recorded
import server as harness
from arrangements import ARRANGEMENTS, Arrangement, in_pieces, make_arrangement
from differential import CasNames, Pair, exchange, expect_equal
from server import Server

NOW = int(time.time())

#: Longer than the durability interval of one second, the second that a batch may take on a busy machine included.
WINDOW = 2.0


@pytest.fixture(scope="module", params=ARRANGEMENTS)
def arrangement(request, tmp_path_factory):
    """Servers live for the whole module: a start per case would take most of the time."""
    made = make_arrangement(request.param, tmp_path_factory.mktemp(request.param))
    yield made
    made.end()


# -- cases -------------------------------------------------------------------------------------------------------
#
# A command stands without its last end of line. @ is the key of the case (four characters), so that @1 is another;
# {text} is the text in base64; ~n is n letters.



def key_of(case: str) -> str:
    """Four characters that stay the same when cases are added, since replies are recorded with them."""
    return f"{zlib.crc32(case.encode()) & 0xffff:04x}"


def bound(text: str, key: str) -> bytes:
    """The bytes of a command for one key."""
    data = re.sub(r"~(\d+)", lambda match: "k" * int(match[1]), text.replace("@", key)).encode("latin-1")
    return re.sub(rb"\{([^}]*)\}", lambda match: base64.b64encode(match[1]), data) + b"\r\n"


ANY_FLAG = [chr(byte) for byte in range(0x21, 0x7f) if chr(byte) not in "@{}~"]
NUMBERS = ["", "0", "1000", "30", "-1", "-", "+5", "0099", "abc", "1x", "x1", "1.5", "2592000", "2592001",
           "2147483647"]

CASES: dict[str, list[str]] = {
    # -- mg
    "mg of what is not there": ["mg @", "mg @ v", "mg @ c f h k l s t u v", "mg @ k Oabc", "mg @ Oabc k", "mg @ q",
                                "mg @ v q k Oabc", "mg @ T30", "mg @ R30 t", "mg @ b", "mg {@} b", "mg {@} b k",
                                "mg {@} k b O1"],
    "mg of an item": ["ms @ 5 F7 T100\r\nhello", "mg @", "mg @ v", "mg @ c", "mg @ f", "mg @ h", "mg @ k", "mg @ l",
                      "mg @ s",
                      "mg @ t", "mg @ u", "mg @ q", "mg @ Oabc", "mg @ O"],
    "the order of flags is that of the request": [
        "ms @ 5 F7\r\nhello", "mg @ s f k v t c O1 h", "mg @ h O1 c t v k f s", "mg @ Oxyz v k", "mg @ v Oxyz k s",
        "mg @  v   s ", "mg  @ v"],
    "hit before": ["ms @ 1\r\nx", "mg @ h", "mg @ h", "mg @ h", "ms @ 1\r\ny", "mg @ h", "mg @ h v"],
    "a read with u leaves no trace": ["ms @ 1\r\nx", "mg @ u h v", "mg @ h u", "mg @ h l", "mg @ h u", "mg @ h"],
    "a classic get is a hit": ["ms @ 1\r\nx", "get @", "mg @ h"],
    "a gat is a hit": ["ms @ 1\r\nx", "gat 100 @", "mg @ h t"],
    "an item of set": ["set @ 5 100 3\r\nabc", "mg @ f t s v h", "set @ 0 0 0\r\n", "mg @ f t s v h"],
    "quiet misses and loud hits": ["mg @ q", "mg @ q v k O1", "mn", "ms @ 1\r\nx", "mg @ q", "mg @ q v k O1", "mn"],
    "mg T sets the time to live": ["ms @ 1\r\nx", "mg @ t", "mg @ T100", "mg @ t", "mg @ T50 t", "mg @ t T200",
                                   "mg @ t",
                                   "mg @ T0 t", "mg @ T2592000 t", f"mg @ T{NOW + 1000} t", "mg @ t v", "mg @ T-1 t",
                                   "mg @"],
    "mg N makes what is not there": ["mg @ N100", "mg @", "mg @ v t s f k", "mg @ N50 t v", "get @", "ms @ 3\r\nnew",
                                     "mg @ v t s"],
    "mg N tells all at once": ["mg @ N100 s v t f k h O1", "mg @ s v t f k h O1 N100", "mg @ h"],
    "mg N with T and R": ["mg @ N100 T50 t", "mg @ t", "mg @1 T50 N100 t", "mg @1 t", "mg @2 N100 R200 t",
                          "mg @2 R200 t", "mg @2 t v"],
    "mg N forever and already over": ["mg @ N0 t", "mg @ t", "mg @1 N-1 t", "mg @1 t", "mg @2 N-1", "mg @2 N30 t"],
    "mg N q": ["mg @ N30 q", "mg @ N30 q", "mg @1 q", "mn"],
    "mg N does not win over an item": ["ms @ 1\r\nx", "mg @ N30 v t", "mg @ v t"],
    "mg R wins when little time is left": ["ms @ 1 T100\r\nx", "mg @ R50 t", "mg @ R200 t", "mg @ R200 t", "mg @ t v",
                                           "mg @ R50 v",
                                           "ms @ 1 T100\r\ny", "mg @ R50 v", "mg @ R200 v", "mg @ R200 v"],
    "mg R of an item that stays": ["ms @ 1\r\nx", "mg @ R100 t", "mg @ R0", "mg @ R-1", "mg @ T10 R100", "mg @ R100"],
    "mg R before and after T": ["ms @ 1 T100\r\nx", "mg @ T10 R50 t", "mg @ v", "ms @1 1 T100\r\nx",
                                "mg @1 R50 T10 t", "mg @1 R50 t"],
    "mg without a key, or with too long a key": ["mg @~246", "mg @~247", "mg @~247 v", "mg @~247 q", "mg @~300 k O1",
                                                 "ms @~246 1\r\nx", "mg @~246 k v s"],
    "opaque tokens up to their length": ["ms @ 1\r\nx",
                                         *[f"{command} O~{count}" for count in (30, 31, 32, 40) for command in (
        "mg @", "mg @1", "mg @ q", "mg @1 q v", "md @1", "md @1 q", "ma @1", "ma @1 N0", "mg @ N30", "md @1")],
                                         "mg @ v"],
    # -- ms
    "ms stores": ["ms @ 5\r\nhello", "mg @ v f t", "ms @ 0\r\n", "mg @ v s", "ms @ 3 F1 T100\r\nabc", "mg @ v f t",
                  "get @"],
    "ms returns what it is asked for": ["ms @ 5 c\r\nhello", "mg @ c", "ms @ 5 k O1\r\nhello",
                                        "ms @ 5 O1 k c\r\nhello", "gets @", "mg @ k c",
                                        "ms @ 3 k c Oabc ME\r\nabc", "mg @ v"],
    "ms modes": ["ms @ 1 ME\r\na", "ms @ 1 ME\r\nb", "mg @ v", "ms @ 1 MA\r\nc", "ms @ 1 MP\r\nd", "mg @ v s",
                 "ms @ 1 MR\r\ne", "mg @ v",
                 "ms @ 1 MS\r\nf", "mg @ v", "ms @1 1 MA\r\nx", "ms @1 1 MP\r\nx", "ms @1 1 MR\r\nx", "mg @1",
                 "ms @1 1 MS\r\nx", "mg @1 v"],
    "ms modes that are none": [f"ms @ 1 M{mode}\r\nx" for mode in "BCDFGIX+-0?"] + ["mg @ v"],
    "ms append keeps flags and time": ["ms @ 2 F9 T100\r\nab", "ms @ 2 MA F1 T5\r\ncd", "mg @ v f t",
                                       "ms @ 2 MP F1 T5\r\ncd", "mg @ v f t",
                                       "ms @ 0 MA\r\n", "ms @ 0 MP\r\n", "mg @ v c"],
    "ms append makes with N": ["ms @ 2 MA N100\r\nab", "mg @ v t", "ms @ 2 MA N50\r\ncd", "mg @ v t",
                               "ms @1 2 MP N0\r\nab", "mg @1 v t",
                               "ms @1 2 MP N0\r\ncd", "mg @1 v t", "ms @2 2 N100\r\nab", "mg @2 v t",
                               "ms @3 2 ME N100\r\nab", "mg @3 v t",
                               "ms @4 2 MA N100 F5\r\nab", "mg @4 v f t", "ms @5 2 MA N-1\r\nab", "mg @5 v"],
    "ms with a CAS": ["ms @ 1 C1\r\nx", "mg @", "ms @ 1\r\na", "mg @ k c", "ms @ 1 C<cas @>\r\nb", "mg @ v",
                      "ms @ 1 C<cas @>\r\nc", "mg @ v c k",
                      "ms @ 1 C<cas @> MR\r\nd", "mg @ v c k", "ms @ 1 C<cas @> ME\r\ne", "mg @ v c k",
                      "ms @ 1 C<cas @> MA\r\nf", "mg @ v c k",
                      "ms @ 1 C1 MA\r\ng", "ms @ 1 C1 MP\r\ng", "ms @ 1 C1 MR\r\ng", "ms @ 1 C1\r\ng",
                      "ms @ 1 C1 q\r\ng", "mg @ v c k",
                      "ms @1 1 C1 MA\r\nx", "ms @1 1 C1 MR\r\nx", "ms @1 1 C1 ME\r\nx", "mg @1 v",
                      "ms @ 1 C0\r\nh", "mg @ v", "ms @ 1 C0 MA\r\nh", "mg @ v"],
    "ms I with an old CAS stores what is stale": [
        "ms @ 1 T100\r\na", "ms @ 1 C1 I\r\nb", "mg @ v t", "mg @ v", "mg @ v c k", "ms @ 1 C<cas @>\r\nc", "mg @ v",
        "ms @ 1 C18446744073709551615 I\r\nd", "mg @ v", "ms @ 1 I\r\ne", "mg @ v", "mg @ c k",
        "ms @ 1 C<cas @> I\r\nf", "mg @ v",
        "ms @ 1 C1 I MR\r\ng", "mg @ v", "ms @ 1 C1 I MA\r\nh", "mg @ v", "ms @ 1 C1 I ME\r\ni", "mg @ v",
        "ms @1 1 C1 I\r\nx", "mg @1 v"],
    "ms quiet": ["ms @ 1 q\r\na", "mg @ v", "ms @ 1 q ME\r\nb", "ms @1 1 q MR\r\nb", "ms @1 1 q MA\r\nb",
                 "ms @ 1 q k O1 c\r\nc", "mg @ v",
                 "ms @ 1 q C1\r\nd", "ms @1 1 q C1\r\nd", "mn"],
    "ms of a binary key": ["ms {@} 3 b\r\nabc", "mg @ v k", "mg {@} b v k", "get @", "ms {@} 3 b k c\r\ndef",
                           "mg {@} b k v", "ms @ 3 k\r\nghi", "mg {@} b k v", "mg @ k v",
                           "ms {@ \x00\x01\xff\r\n} 3 b k\r\nxyz", "mg {@ \x00\x01\xff\r\n} b k v",
                           "mg {@ \x00\x01\xff\r\n} k v",
                           "md {@ \x00\x01\xff\r\n} b k", "mg {@ \x00\x01\xff\r\n} b k"],
    "the longest binary key": ["ms {@~183} 1 b k\r\nx", "mg {@~183} b k v", "mg {@~184} b k", "ms {@~184} 1 b\r\nx",
                               "md {@~184} b", "ma {@~184} b",
                               "ma {@~183} b k", "md {@~183} b k"],
    "keys that are no base64": [f"{command} {key}{tail[:2]} b k{tail[2:]}" for key in ("@=", "@====", "a", "ab",
        "abc", "@!@@", "====", "@\x00", "@-_@", "YQ=", "=", "YQ==YQ==", "Y===")
                                for command, tail in (("mg", ""), ("ms", " 2\r\nmn"), ("md", ""), ("ma", ""))],
    "ms with a bad length": [f"ms @ {length}\r\nxy" for length in ("abc", "-1", "2x", "2147483648",
        "99999999999999999999")],
    "ms with a bad data chunk": ["ms @ 2\r\nab",
                                 *[f"ms @ 3{more}\r\nabc and more" for more in ("", " q", " ME", " MA", " MR", " C1",
                                     " k O1 c", " I")],
                                 "mg @ v", "ms @ 3\r\nab\r\nmore", "ms @ 3 q\r\nabcdefgh", "mg @ v",
                                 "ms @ 0\r\nfive5", "mg @ v"],
    "ms in error skips its value": ["ms @ 2 T1 T2\r\nmn", "ms @ 2 MX\r\nmn", "ms @ 2 Cx\r\nmn", "ms @ 2 Tx\r\nmn",
                                    "ms @~247 2\r\nmn", "ms @~247 2 q\r\nmn",
                                    "ms @ 2 O~40\r\nmn", "ms @ 2 MX q\r\nmn", "ms @ 2 !\r\nmn", "ms @ 2 S\r\nmn",
                                    "mg @"],
    "a value over the limit is refused and takes the old one along": [
        "ms @ 2\r\nab", "ms @ 1048576 MA\r\n~1048576", "mg @", "ms @ 2\r\nab", "ms @ 1048576 q\r\n~1048576", "mg @ v",
        "ms {@} 1048576 b k O1\r\n~1048576"],
    # -- md
    "md": ["md @", "ms @ 1\r\nx", "md @", "md @", "mg @", "ms @ 1\r\nx", "md @ k O1", "md @ k O1", "md @ O1 k"],
    "md quiet": ["md @ q", "md @ q k O1", "ms @ 1\r\nx", "md @ q", "mg @", "ms @ 1\r\nx", "md @ q k O1", "mg @",
                 "mn"],
    "md with a CAS": ["ms @ 1\r\nx", "md @ C1", "md @ C1 k O1", "md @ C1 q", "mg @ k c v", "md @ C<cas @>", "mg @",
                      "md @ C1", "ms @ 1\r\nx", "md @ C0", "mg @"],
    "md I": ["md @ I", "ms @ 1 T100\r\nx", "mg @ c", "md @ I", "mg @ c v t", "mg @ c v", "mg @ v", "md @ I", "mg @ v",
             "ms @ 1\r\ny", "mg @ v", "mg @ v"],
    "md I with a time": ["ms @ 1 T100\r\nx", "md @ I T30", "mg @ t v", "mg @ t v", "md @ T50", "mg @", "ms @ 1\r\nx",
                         "md @ T50 I", "mg @ t", "md @ I T0", "mg @ t", "md @ I T-1", "mg @"],
    "md I with a CAS": ["ms @ 1\r\nx", "md @ I C1", "mg @ v k c", "md @ I C<cas @>", "mg @ v k c",
                        "md @ C<cas @> I T30", "mg @ v c t"],
    "md I quiet": ["ms @ 1\r\nx", "md @ I q", "mg @ v", "md @ I q k O1", "mg @ v", "md @1 I q", "mn"],
    "a stale item and the classic commands": ["ms @ 1\r\n1", "md @ I", "get @", "gets @", "incr @ 1", "mg @ v",
                                              "mg @ v", "touch @ 100", "mg @ v t", "set @ 0 0 1\r\nx",
                                              "mg @ v", "md @ I", "append @ 0 0 1\r\ny", "mg @ v", "mg @ v", "md @ I",
                                              "cas @ 0 0 1 1\r\nz", "mg @ v", "add @ 0 0 1\r\nz",
                                              "mg @ v", "replace @ 0 0 1\r\nz", "mg @ v", "md @ I", "gat 100 @",
                                              "mg @ v t"],
    "a stale item and ms": ["ms @ 1\r\nx", "md @ I", "ms @ 1 ME\r\ny", "mg @ v", "ms @ 1 MA\r\ny", "mg @ v", "md @ I",
                            "ms @ 1 MP\r\ny", "mg @ v", "mg @ v",
                            "md @ I", "ms @ 1 MR\r\nz", "mg @ v"],
    "a stale item with R and N": ["ms @ 1 T10\r\nx", "md @ I", "mg @ R30 v", "mg @ R30 v", "mg @ N30 v", "md @ I",
                                  "mg @ N30 v", "mg @ N30 v t"],
    "a stale item that is refilled under its CAS": ["ms @ 1\r\na", "md @ I T30", "mg @ k c v",
                                                    "ms @ 1 C<cas @> T90\r\nb", "mg @ v t", "mg @ v"],
    "stale and touched": ["ms @ 1\r\na", "md @ I", "mg @ T100 t", "mg @ t v", "mg @ u v", "md @ I", "mg @ u v",
                          "mg @ u v"],
    "a binary key and md": ["ms {@} 1 b\r\nx", "md {@} b I k", "mg {@} b k v", "mg @ k v", "md {@} b q k", "mg @",
                            "md {@} b k O1"],
    # -- ma
    "ma": ["ma @", "ma @ v", "ma @ k O1", "ma @ q", "ms @ 2\r\n10", "ma @", "ma @ v", "ma @ D5 v", "ma @ MD v",
           "ma @ MD D7 v", "ma @ MD D100 v", "mg @ v s"],
    "ma modes": ["ms @ 2\r\n10", *[f"ma @ M{mode} v" for mode in ("I", "+", "D", "-", "")],
                 *[f"ma @ M{mode} v" for mode in "XEASRP019*"], "mg @ v"],
    "ma makes with N": ["ma @ N0 v", "ma @ N0 v", "ma @1 N100 J13 v t", "ma @1 N100 J13 v t", "mg @1 v t f",
                        "ma @2 N100 J13 D5 v", "ma @3 J13 v", "ma @4 N0 J99 MD v",
                        "ma @4 N0 J99 MD v", "ma @5 N-1 v t", "mg @5", "ma @6 N30 q", "ma @6 N30 q v", "mg @6 v"],
    "ma returns what it is asked for": ["ms @ 2 T100\r\n10", "ma @ t", "ma @ c", "ma @ t v c k O1", "ma @ O1 k v t",
                                        "mg @ c v", "ma @ k", "ma {@} b k v", "mg @ k v t"],
    "ma with a time": ["ms @ 2\r\n10", "ma @ T100 t", "ma @ t", "ma @ t T50", "ma @ t v", "ma @1 N30 T100 t",
                       "ma @1 t", "ma @2 T100 N30 t", "ma @2 t", "ma @ T-1", "mg @"],
    "ma with a CAS": ["ms @ 2\r\n10", "ma @ C1", "ma @ C1 v k O1", "ma @ C1 q", "mg @ k c v", "ma @ C<cas @> v",
                      "mg @ k c v", "ma @ C<cas @> MD D3 v c k", "ma @1 C1", "ma @1 C1 N30 v", "ma @ C0 v"],
    "ma wraps and stops": ["ms @ 20\r\n18446744073709551614", "ma @ v", "mg @ v", "ma @ v", "mg @ v", "ma @ MD D5 v",
                           "ma @ D18446744073709551615 v", "ma @ v", "ma @ v"],
    "ma pads what has become shorter": ["ms @ 3\r\n100", "ma @ MD v", "mg @ v s", "ma @ v", "mg @ v s",
                                        "ma @ MD D95 v", "mg @ v s"],
    "ma of what is no number": ["ms @ 3\r\nabc", "ma @", "ma @ v", "ma @ q", "ma @ q k O1", "ms @ 0\r\n", "ma @ v",
                                "ms @ 21\r\n111111111111111111111", "ma @ v", "mg @ v"],
    "ma quiet": ["ma @ q", "ma @ q k O1", "ms @ 1\r\n1", "ma @ q", "ma @ q v", "ma @ q v k", "mg @ v", "ma @ q C1",
                 "mn"],
    "ma is no hit": ["ms @ 1\r\n1", "ma @", "mg @ h"],
    "ma and stale": ["ms @ 1\r\n1", "md @ I", "ma @ v", "mg @ v", "mg @ v", "ma @ v", "mg @ v"],
    "ma of an expired item": ["ms @ 1 T-1\r\n1", "ma @ v", "ma @ N30 v t", "ma @ v"],
    "ma with too long a key": ["ma @~247", "ma @~247 q", "ma @~246", "ma @~246 N0 k v"],
    # -- me and mn
    "me": ["me @", "ms @ 1 T100\r\nx", "me @", "mg @", "me @", "me @", "ms @1 5 F5\r\nhello", "me @1", "me @1 v",
           "me @1 k s", "mg @1 c k", "me @1"],
    "me of other keys": ["ms {@ \x00} 1 b\r\nx", "me {@ \x00}", "me @", "me {@ \x00} v b", "me @~247"],
    "me leaves no trace": ["ms @ 1\r\nx", "me @", "mg @ h", "me @"],
    "mn": ["mn", "mn ", "mn x", "mn q", "mn @ v k"],
    # -- all
    "words that are none": ["mx @", "m @", "mgx @", "MG @", "mG @", "md@"],
    "flags twice": ["ms @ 1\r\nx",
                    *[f"{command} {flag}{more} {flag}{more}" for command in ("mg @", "md @1", "ma @1") for flag,
                      more in [
        *[(letter, "") for letter in "bcfhkqstuvIlx"], ("O", "1"), ("T", "30"), ("N", "30"), ("R", "30"), ("M", "I"),
                          ("C", "1"), ("J", "1"), ("D", "1"), ("F", "1"),
        ("!", "")] if not (command == "mg @" and flag == "x")], "mg @ v v q", "mg @ q q", "mg @ k v O1 O1",
                    "mg @ s t v c f s", "mg @ O1 O2", "md @ q q", "ma @ q q"],
    "ms flags twice": [*[f"ms @ 2 {flag}{more} {flag}{more}\r\nmn" for flag,
                         more in [*[(letter, "") for letter in "bckqsI"], ("O", "1"), ("T", "30"), ("F", "1"), ("M",
                             "E"),
                                                                                      ("C", "1"), ("N", "1")]],
                       "mg @"],
    "as many flags as there may be": ["ms @ 1\r\nx", "mg @ c f k s t v h l O1 u q I S P L",
                                      "mg @ c f h k l O1 q s t u v N30 T30 R30 P L I M D1",
                                      "mg @ c f h k l O1 q s t u v N30 R30 P L I M D1 J1 F1",
                                      "mg @ c f h k l O1 q s t u v N30 R30 P L I M D1 J1 F1 C1 T30",
                                      "md @ c f h k l O1 q s t u v N30 R30 P L I M D1 J1 F1 C1 T30",
                                      "ma @ c f h k l O1 q s t u v N30 R30 P L I M D1 J1 F1 C1 T30",
                                      "ms @ 2 c f h k l O1 q s t u v N30 R30 P L I M D1 J1 F1 C1 T30\r\nmn",
                                      "mg @ v"],
    "each character as a flag of mg": ["ms @ 1 T100\r\nx",
                                       *[f"mg @{key} {flag}" for flag in ANY_FLAG for key in ("",
                                           "1") if flag not in "Nx"]],
    "each character as a flag of md": [f"md @ {flag}" for flag in ANY_FLAG],
    "each character as a flag of ma": [f"ma @ {flag}" for flag in ANY_FLAG],
    "each character as a flag of ms": [f"ms @ 2 {flag}\r\nmn" for flag in ANY_FLAG],
    "bytes that are no characters": [f"{command} {flag}" for command in ("mg @", "md @", "ma @") for flag in ("\x01",
        "\t", "\x7f", "\x80", "\xff", "\x00")],
    "numbers after T": ["ms @ 1\r\nx",
                        *[step for number in NUMBERS for step in (f"mg @ T{number}", "mg @ t", "ms @ 1 T100\r\nx")],
                        *[step for number in NUMBERS for step in (
        f"ms @1 2 T{number}\r\nmn", "mg @1 v t")]],
    "numbers after N and R": [*[step for number in NUMBERS for step in (f"mg @1 N{number}", "mg @1 t", "md @1")],
                              *[f"mg @ R{number}" for number in NUMBERS],
                              *[step for number in NUMBERS for step in (f"ma @2 N{number}", "mg @2 t", "md @2")]],
    "numbers after C": [f"{command} C{number}" for number in ("", "0", "1", "-1", "abc", "1x", "18446744073709551615",
        "18446744073709551616", "+1") for command in (
        "md @", "ma @")] + [f"ms @ 2 C{number}\r\nmn" for number in ("", "0", "1", "abc", "1x",
            "18446744073709551615", "18446744073709551616")],
    "numbers after D and J": ["ms @ 1\r\n1",
                              *[f"ma @ {flag}{number} v" for flag in "DJ" for number in ("", "0", "1", "abc", "1x",
                                  "18446744073709551615", "18446744073709551616")],
                              *[step for number in ("0", "1", "abc",
                                                    "18446744073709551615") for step in (f"ma @1 N0 J{number} v",
                                                        "md @1")]],
    "numbers after F": [step for number in ("", "0", "1", "-1", "abc", "4294967295", "4294967296",
                                            "99999999999999999999") for step in (
        f"ms @ 2 F{number}\r\nmn", "mg @ f")],
    "keys of odd bytes": ["ms @\xfc\xff 1\r\nx", "mg @\xfc\xff k v", "ms @\t\x01 1\r\nx", "mg @\t\x01 k v",
                          "md @\t\x01 k", "ma @\x7f N0 k"],
    "the other commands see the same items": ["ms @ 2\r\n10", "get @", "incr @ 5", "mg @ v", "decr @ 8", "mg @ v s",
                                              "touch @ 100", "mg @ t", "append @ 0 0 1\r\nx", "mg @ v",
                                              "delete @", "mg @", "add @ 5 0 1\r\nx", "mg @ v f", "ms @ 1 C1\r\ny",
                                              "gets @"],
    "an expired item is not there": ["ms @ 1 T-1\r\nx", "mg @", "ms @ 1 ME\r\ny", "mg @ v", "mg @ T-1",
                                     "ms @ 1 MA\r\ny", "ms @ 1 MR\r\ny", "ms @ 1 C1\r\ny", "md @", "ma @", "me @",
                                     "md @ I", "mg @ N30 v"],
    # -- newer than 1.6.18
    "E gives the CAS": [
        "ms @ 1 E1000000000001 c\r\nx", "mg @ c v", "ms @ 1 c\r\ny", "mg @ c v", "md @ I E1000000000002 c",
        "mg @ c v", "mg @ c v", "ms @ 2 E1000000000003 C1000000000002\r\n10",
        "mg @ c v", "ma @ E1000000000004 c v", "mg @ c v", "ma @ C1000000000004 E1000000000005 c v",
        "md @ C1000000000004", "md @ C1000000000005 E7", "mg @",
        "mg @1 N30 E1000000000006 c", "mg @1 c", "mg @1 E1000000000007 c", "ma @2 N0 J5 E1000000000008 c v",
        "mg @2 c v", "ms @3 1 MA N0 E1000000000009 c\r\nx", "mg @3 c v",
        "ms @3 1 MA E1000000000010 c\r\ny", "mg @3 c v", "ms @3 1 ME E1000000000011 c\r\ny", "mg @3 c v",
        "ms @3 1 C1 I E1000000000012 c\r\nz", "mg @3 c v"],
    "numbers after E": [f"{command} E{number}" for number in ("", "-1", "abc", "1x", "18446744073709551615",
        "18446744073709551616") for command in ("mg @ c", "md @", "ma @")] + [
        step for number in ("", "-1", "abc", "1x", "18446744073709551614",
                            "18446744073709551616") for step in (f"ms @ 2 c E{number}\r\nmn", "mg @ c")],
    "an older CAS than E gave": ["ms @ 1 E1000000000001\r\na", "ms @ 1 C999999999999 E1000000000002 I c\r\nb",
                                 "mg @ v c", "ms @ 1 C1000000000009 I\r\nc", "mg @ v c", "ms @ 1 C1000000000002\r\nd",
                                 "mg @ v"],
    "mg C leaves out a value that is known": ["ms @ 5 F3\r\nhello", "mg @ c k", "mg @ C<cas @> v f", "mg @ C1 v f",
                                              "mg @ C<cas @> s t", "mg @1 C1 v", "mg @ v C", "mg @ v Cx",
                                              "mg @ h v C<cas @>",
                                              "mg @ C0 v", "mg @2 N30 C0 v", "md @ I", "mg @ k c C<cas @> v",
                                              "mg @ C<cas @> v"],
    "md x leaves an empty item": ["md @ x", "ms @ 5 F3 T100\r\nhello", "mg @ c", "md @ x", "mg @ v f t s c",
                                  "ms @ 5 F3 T100\r\nhello", "md @ x T30 F9", "mg @ v f t s", "md @ x I T50",
                                  "mg @ v f t",
                                  "mg @ v f t", "md @ x C1", "mg @ k c", "md @ x C<cas @> q", "mg @ v",
                                  "ms @ 2\r\nab", "md @ x E1000000000001 k O1", "mg @ c v", "ms @ 2\r\nab", "md @ I",
                                  "mg @", "md @ x",
                                  "mg @ v", "mg @ v", "get @"],
    "a line that ends in a bare newline": ["ms @ 1\nx", "mg @ v\nmg @ k v\nmn\nmd @ q\nmg @\nma @ N0 v\nme @1\nmn"],
}

#: Where even 1.6.45 contradicts the protocol's document, the replies that follow from the document. `me` ignores b there
#: unless something follows it; an item of a key in base64 that N or x made, or that has grown, gives that key back as
#: it is in memory, line ends and all. T and E of a `ma` that makes a number longer are lost.
DOCUMENTED: dict[str, list[tuple[str, str]]] = {
    "me of a key in base64": [
        ("me {@ \n} b", "EN\r\n"), ("ms {@ \n} 1 b\r\nx", "HD\r\n"), ("me {@ \n} b",
            "ME {@ \n} exp=-1 la=0 cas=* fetch=no cls=* size=*\r\n"),
        ("ms @ 1\r\nx", "HD\r\n"), ("me {@} b", "ME @ exp=-1 la=0 cas=* fetch=no cls=* size=*\r\n")],
    "mg N of a key in base64": [
        ("mg {@ \n} b N30 k", "HD k{@ \n} b W\r\n"), ("mg {@ \n} b k v", "VA 0 k{@ \n} b Z\r\n\r\n"),
        ("mg {@} b N30 k q", "HD k{@} b W\r\n"), ("mg @ k", "HD k{@} b Z\r\n")],
    "ma N of a key in base64": [
        ("ma {@ \n} b N0 k J5 v", "VA 1 k{@ \n} b\r\n5\r\n"), ("mg {@ \n} b k v", "VA 1 k{@ \n} b\r\n5\r\n")],
    "an item of a key in base64 grows": [
        ("ms {@ \n} 1 b\r\n9", "HD\r\n"), ("ma {@ \n} b v k", "VA 2 k{@ \n} b\r\n10\r\n"), ("mg {@ \n} b k v",
            "VA 2 k{@ \n} b\r\n10\r\n"),
        ("ms {@ \n} 1 b MA k\r\n5", "HD k{@ \n} b\r\n"), ("mg {@ \n} b k v", "VA 3 k{@ \n} b\r\n105\r\n"),
        ("ms {@ \n} 1 b MP k\r\n5", "HD k{@ \n} b\r\n"),
        ("mg {@ \n} b k v", "VA 4 k{@ \n} b\r\n5105\r\n")],
    "ma with T or E of a number that grows": [
        ("ms @ 1\r\n9", "HD\r\n"), ("ma @ T5000 v", "VA 2\r\n10\r\n"), ("ms @1 1 E7\r\n9", "HD\r\n"),
        ("ma @1 E1000000000001 v c", "VA 2 c1000000000001\r\n10\r\n"),
        ("mg @1 c", "HD c1000000000001\r\n"), ("mg @ R4000", "HD\r\n"), ("mg @ R6000", "HD W\r\n")],
    "md x of a key in base64": [
        ("ms {@ \n} 2 b\r\nab", "HD\r\n"), ("md {@ \n} b x k", "HD k{@ \n} b\r\n"), ("mg {@ \n} b k v",
            "VA 0 k{@ \n} b\r\n\r\n"),
        ("md {@ \n} b x I T30", "HD\r\n"), ("mg {@ \n} b k v", "VA 0 k{@ \n} b X W\r\n\r\n")],
}

assert len({key_of(case) for case in CASES}) == len(CASES), "two cases have the same key"

#: What 1.6.45 answers otherwise than Debian's 1.6.18: case -> command -> its reply in comparable form.
NEWER = recorded.load(harness.ROOT / "Tests" / "Integration" / "meta_newer.json")


@dataclass
class Walk:
    """A case on its way through both servers, step by step."""

    name: str
    commands: list[bytes]
    pair: Pair
    said: list[tuple]

    def step(self, at: int) -> None:
        """Sends a command to both, and expects of ours what is recorded of 1.6.45, or else what the other says."""
        command = self.commands[at]
        ours, peer = self.pair.ask(command)
        expect_equal(ours, NEWER.get(f"{self.name}, {at}", peer), f"{self.name}, command {at}", command)
        self.said += ours


def walk(arrangement: Arrangement, name: str) -> Walk:
    return Walk(name, [bound(command, key_of(name)) for command in CASES[name]], Pair(arrangement.ours,
        arrangement.peer), [])


def as_one_pipeline(arrangement: Arrangement, done: Walk) -> None:
    """The same commands at once have the replies that they had one by one. All stay in RAM, so `cold` has no need of it."""
    if harness.is_memcached(arrangement.ours.binary) or any(b"<cas " in command for command in done.commands):
        return
    with arrangement.ours.connect() as connection:
        assert connection.call(b"flush_all\r\n") == b"OK"
    again = CasNames().comparable(exchange(arrangement.ours, b"".join(done.commands)))
    assert again == done.said, f"{done.name}: as one pipeline it is answered otherwise than one command at a time"


@pytest.mark.parametrize("arrangement", ARRANGEMENTS[:2], indirect=True)
@pytest.mark.parametrize("case", CASES)
def test_meta_replies_are_those_of_memcached(arrangement, case):
    arrangement.fresh_pair()
    steps = walk(arrangement, case)
    for at in range(len(steps.commands)):
        steps.step(at)
    as_one_pipeline(arrangement, steps)


@pytest.mark.bounded(300)
@pytest.mark.parametrize("arrangement", ARRANGEMENTS[2:], indirect=True)
def test_meta_replies_on_cold_items_are_those_of_memcached(arrangement):
    """Each item has left RAM before the next command of its case comes."""
    arrangement.fresh_pair()
    walks = [walk(arrangement, case) for case in CASES]
    problems, left = [], walks
    for at in range(max(len(one.commands) for one in walks)):
        left = [one for one in left if at < len(one.commands)]
        for one in list(left):
            try:
                one.step(at)
            except AssertionError as problem:
                problems.append(str(problem))
                left.remove(one)
        arrangement.push_out()
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("case", DOCUMENTED)
def test_meta_replies_are_those_of_the_document(arrangement, case):
    if harness.is_memcached(arrangement.ours.binary):
        pytest.skip("memcached does otherwise")
    arrangement.fresh_pair()
    for command, expected in DOCUMENTED[case]:
        found = re.sub(rb"\b(cas|cls|size)=\d+", rb"\1=*", exchange(arrangement.ours, bound(command, "docu")))
        found = re.sub(rb"\bla=[0-5]\b", b"la=0", found)
        assert found == bound(expected, "docu")[:-2], command
        arrangement.push_out()


# -- splits ------------------------------------------------------------------------------------------------------

STREAM = b"".join(bound(command, "s") for command in [
    "ms @1 12 F5 T100 c k\r\nhello\r\nworld", "mg @1 v c f t s k Oabc", "mg @2 v q", "mg @2 N30 t v",
    "ms {@3 \xff} 2 b q\r\n10", "ma {@3 \xff} b k v", "md @1 I T30", "mg @1 v",
    "mg @1 v", "ms @1 3 MA S\r\nxyz", "ms @1 3 MA\r\nxyz", "ms @1 3\r\nbad data", "me @4", "md @1 q", "md @1 O~31",
    "md @1 O~32", "mg @1 v v", "mg", "mn", "get @2 @1", "ms @4 1 C1\r\nx",
    "mg {@3 \xff} b k v h u", "mn"])


@pytest.fixture(scope="module", params=ARRANGEMENTS[:2])
def single_worker(request, tmp_path_factory):
    """A server with one worker: when it has answered on one connection, it has read what came before on another."""
    options = ["--cold-limit", "1G"] if request.param == "tiers" else []
    server = Server(tmp_path_factory.mktemp("split"), *options, cold=request.param == "tiers", threads=1).start()
    yield server
    server.kill()


def test_a_meta_stream_may_be_split_at_any_byte(single_worker):
    expected = CasNames().comparable(in_pieces(single_worker, [STREAM]))
    assert len(expected) > 20
    for at in range(1, len(STREAM)):
        found = CasNames().comparable(in_pieces(single_worker, [STREAM[:at], STREAM[at:]]))
        assert found == expected, f"split at byte {at}, after {STREAM[max(0, at - 20):at]!r}"


def test_a_meta_stream_may_come_byte_by_byte(single_worker):
    expected = CasNames().comparable(in_pieces(single_worker, [STREAM]))
    assert CasNames().comparable(in_pieces(single_worker, [STREAM[i:i + 1] for i in range(len(STREAM))])) == expected


# -- what survives -----------------------------------------------------------------------------------------------

#: What makes an item of each kind, and what is then answered, the first time and the second.
KINDS: list[tuple[list[str], str, str, str]] = [
    (["ms @ 2 F7\r\nab"], "mg @ f t v", "VA 2 f7 t-1\r\nab\r\n", "VA 2 f7 t-1\r\nab\r\n"),
    (["ms @ 2 F7 T5000\r\nab", "md @ I"], "mg @ f v", "VA 2 f7 X W\r\nab\r\n", "VA 2 f7 Z X\r\nab\r\n"),
    (["ms @ 2\r\nab", "md @ I T5000", "mg @"], "mg @ v", "VA 2 Z X\r\nab\r\n", "VA 2 Z X\r\nab\r\n"),
    (["mg @ N5000"], "mg @ v", "VA 0 Z\r\n\r\n", "VA 0 Z\r\n\r\n"),
    (["ms @ 2 T5000\r\nab", "mg @ R9000"], "mg @ R9000 v", "VA 2 Z\r\nab\r\n", "VA 2 Z\r\nab\r\n"),
    (["ms @ 2 T5000\r\nab"], "mg @ R9000 v", "VA 2 W\r\nab\r\n", "VA 2 Z\r\nab\r\n"),
    (["ms @ 2 E5\r\nab", "ms @ 2 C4 I\r\ncd"], "mg @ v", "VA 2 X W\r\ncd\r\n", "VA 2 Z X\r\ncd\r\n"),
    (["ms @ 2 E1234567890123\r\nab"], "mg @ c v", "VA 2 c1234567890123\r\nab\r\n", "VA 2 c1234567890123\r\nab\r\n"),
    (["ms {@ \x00} 2 b\r\nab"], "mg {@ \x00} b k v", "VA 2 k{@ \x00} b\r\nab\r\n", "VA 2 k{@ \x00} b\r\nab\r\n"),
    (["ms {@} 2 b\r\nab"], "mg @ k v", "VA 2 k{@} b\r\nab\r\n", "VA 2 k{@} b\r\nab\r\n"),
    (["ms @ 1 F3\r\nx", "md @ x F4"], "mg @ f v", "VA 0 f4\r\n\r\n", "VA 0 f4\r\n\r\n"),
    (["ma @ N0 J41", "ma @"], "ma @ v", "VA 2\r\n43\r\n", "VA 2\r\n44\r\n"),
    (["ms @ 2\r\nab", "md @ I", "mg @", "ms @ 2\r\ncd"], "mg @ v", "VA 2\r\ncd\r\n", "VA 2\r\ncd\r\n"),
    (["ms @ 2\r\nab", "mg @"], "mg @ h v", "VA 2 h1\r\nab\r\n", "VA 2 h1\r\nab\r\n"),
    (["ms @ 2 T1000\r\nab", "md @"], "mg @ v k", "EN k@\r\n", "EN k@\r\n"),
]


def make_kinds(server: Server) -> None:
    stream = b"".join(bound(command, f"kind{number}") for number, (commands,
        *_) in enumerate(KINDS) for command in commands)
    assert b"ERROR" not in exchange(server, stream)


def check_kinds(server: Server, which: int) -> None:
    """`which`: 0 for the first time that they are asked, 1 for each later one."""
    for number, (commands, ask, *answers) in enumerate(KINDS):
        key = f"kind{number}"
        assert exchange(server, bound(ask, key)) == bound(answers[which], key)[:-2], (key, commands, ask)


@pytest.mark.cold_tier
@pytest.mark.parametrize("way", ["stays", "demoted", "killed", "stopped", "demoted and killed"])
def test_marks_survive_demotion_and_restart(make_server, way):
    """Stale, won, made by N, given CAS, binary key, read before: all lie in the file with their item."""
    cold = "demoted" in way
    server = make_server(memory=2 if cold else 64, threads=1).start()
    mover = Arrangement("cold" if cold else "tiers", server, server)
    for again in range(2):
        if again == 0:
            make_kinds(server)
        if cold:
            mover.push_out()
        if "killed" in way:
            time.sleep(WINDOW)
            server.kill()
            server.start()
        elif way == "stopped":
            server.terminate()
            server.start()
        check_kinds(server, which=again)


# -- time --------------------------------------------------------------------------------------------------------

def test_stale_and_made_items_expire(arrangement):
    """T after I, and N, set a time that is kept."""
    arrangement.fresh_pair()
    server = arrangement.ours
    stream = ["ms @1 1\r\nx", "md @1 I T2", "mg @2 N2", "ms @3 1\r\nx", "mg @3 T2", "ma @4 N2 J5", "ms @5 1 T2\r\nx",
              "ms @6 1\r\nx"]
    assert exchange(server, b"".join(bound(command, "e") for command in stream)).count(b"HD") == len(stream)
    arrangement.push_out()
    asked = b"".join(bound(f"mg @{number} u", "e") for number in range(1, 7))
    deadline = time.monotonic() + 10
    while exchange(server, asked) != b"EN\r\n" * 5 + b"HD\r\n":
        assert time.monotonic() < deadline, exchange(server, asked)
        time.sleep(0.05)


def test_the_last_access_is_told(arrangement):
    """l counts from the last read or write that leaves a trace; memcached itself notes it once a minute only, and ours
    not at all while an item is read from the file without being promoted."""
    if harness.is_memcached(arrangement.ours.binary):
        pytest.skip("ours is more exact")
    server = arrangement.ours
    exchange(server, bound("ms @1 1\r\nx", "l") + bound("ms @2 1\r\nx", "l"))
    arrangement.push_out()
    time.sleep(2.2)
    assert int(exchange(server, bound("mg @1 u l", "l"))[4:]) >= 2
    assert int(exchange(server, bound("mg @1 l", "l"))[4:]) >= 2
    if not arrangement.is_cold:
        assert int(exchange(server, bound("mg @1 l", "l"))[4:]) <= 1


# -- random mixes ------------------------------------------------------------------------------------------------

KEYS = [f"m{i}" for i in range(6)]
BINARY_KEYS = [base64.b64encode(key).decode() for key in (b"m0", b"m1", b"\x00\xff\x01\t", b"m" * 100)]


def random_flags(rng: random.Random, letters: str, key: str, most: int = 5) -> list[str]:
    """Flags for `key` with arguments that fit, seldom one that doesn't, in any order, seldom one twice."""
    flags = []
    for letter in rng.sample(letters, min(len(letters), rng.randrange(most + 1))):
        argument = {
            "O": lambda: rng.choice(["", "1", "abc", "x" * 30]),
            "T": lambda: str(rng.choice([0, 30, 100, 5000, 2592000, NOW + 5000, -1])),
            "N": lambda: str(rng.choice([0, 30, 100, 5000])),
            "R": lambda: str(rng.choice([0, 20, 60, 200, 9000])),
            "F": lambda: str(rng.choice([0, 1, 255, 65535, 4294967295])),
            "C": lambda: rng.choice(["0", f"<cas {key}>", f"<cas {key}>", f"<cas {key}>", "18446744073709551615"]),
            "E": lambda: str(rng.randrange(10**15, 10**16)),
            "D": lambda: str(rng.choice([0, 1, 5, 99, 10**6])),
            "J": lambda: str(rng.choice([0, 7, 99])),
            "M": lambda: rng.choice("EAPRSEAPRSXID"),
        }.get(letter, str)()
        flags.append(letter + argument)
    if flags and rng.random() < 0.01:
        flags.append(rng.choice(flags))
    if rng.random() < 0.005:
        flags.append(rng.choice(["T", "Tx", "y", "Nx", "Cx"]))
    return flags


def random_meta_command(rng: random.Random, newer: bool) -> bytes:
    kind = rng.choices(["mg", "ms", "md", "ma", "classic", "mn"], [30, 25, 10, 12, 12, 2])[0]
    binary = rng.random() < 0.2
    key = rng.choice(BINARY_KEYS if binary else KEYS)
    if kind == "mn":
        return b"mn\r\n"
    if kind == "classic":
        return rng.choice([
            f"get {key}\r\n", f"gets {key}\r\n", f"delete {key}\r\n", f"touch {key} 100\r\n", f"gat 100 {key}\r\n",
            f"incr {key} 1\r\n",
            f"set {key} 3 0 2\r\n10\r\n", f"append {key} 0 0 1\r\n5\r\n", f"add {key} 1 0 1\r\n7\r\n"]).encode()
    # What 1.6.18 answers otherwise is left out beside it: E, x, C of mg, N of ms, and every error of md. T and E of ma:
    # see DOCUMENTED.
    letters = {"mg": "cfhklOqstuvNRT", "ms": "ckOqFTICMS" if not newer else "ckOqsFTICMEN", "md": "kOqITC",
               "ma": "kOqctvNJDC"}[kind]
    if newer:
        letters += {"mg": "EC", "ms": "", "md": "xE", "ma": ""}[kind]
    flags = random_flags(rng, letters, base64.b64decode(key).decode("latin-1") if binary else key)
    if kind == "ma" and rng.random() < 0.5:
        flags.append(rng.choice(["MI", "MD", "M+", "M-"]))
    if kind == "md" and not newer:
        flags = [flag for at,
                 flag in enumerate(flags) if flag not in flags[:at] and flag[:1] in letters and flag not in ("T",
                     "Tx", "Cx")]
    if kind == "ma" and not newer and "q" in flags:
        flags = [flag for flag in flags if not flag.startswith("N")]
    if binary:
        flags.insert(rng.randrange(len(flags) + 1), "b")
    words = " ".join([key, *flags])
    if kind != "ms":
        return f"{kind} {words}\r\n".encode("latin-1")
    # No value of white space alone: memcached then counts on with what lies behind it in its memory.
    value = rng.choice([b"%d" % rng.randrange(200), b"10",
                        (b"x" + rng.randbytes(3000))[:rng.choice([0, 1, 5, 40, 500, 3000])]])
    return f"ms {key} {len(value)} {' '.join(flags)}".encode("latin-1").rstrip(b" ") + b"\r\n" + value + b"\r\n"


COMMANDS = {"ram": 20_000, "tiers": 20_000, "cold": 1_500}


@pytest.mark.bounded(3600 if harness.LONG else 300)
@pytest.mark.parametrize("seed", [1, 2, 3] if harness.LONG else [1])
def test_random_meta_commands_are_answered_as_by_memcached(arrangement, seed, say):
    rng = random.Random(seed)
    pair = arrangement.fresh_pair()
    for names in pair.names:
        names.decode_keys = True  # see DOCUMENTED
    with arrangement.peer.connect() as connection:
        newer = connection.call(b"version\r\n") >= b"VERSION 1.6.40"
    every_key = b"".join(bound(f"mg {key} k c u v t f s", "") for key in KEYS) + b"".join(
        bound(f"mg {key} b k c u v t f s", "") for key in BINARY_KEYS)
    done, total = 0, COMMANDS[arrangement.name] * (10 if harness.LONG else 1)
    start = time.monotonic()
    while done < total:
        count = min(rng.choice([1, 5, 20, 40] if arrangement.is_cold else [1, 10, 100, 1000]), total - done)
        pair.compare(every_key, f"seed {seed}, before command {done}")
        arrangement.push_out()
        pair.compare_pipeline([random_meta_command(rng, newer) for _ in range(count)],
                              f"seed {seed}, commands from {done}")
        done += count
    pair.compare(every_key, f"seed {seed}, at the end")
    say(f"{arrangement.name}, seed {seed}: {done} commands in {time.monotonic() - start:.1f} s")
