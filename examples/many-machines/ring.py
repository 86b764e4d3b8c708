#!/usr/bin/env python3
"""Picks out of a stream of `thermocline export` what belongs to one node of a ketama ring. Needs uhashring (PyPI).

    thermocline export items.db | ring.py --of node4 node1 node2 node3 node4 > moved.stream
        the items that the ring of these four gives to node4, stored only where nothing is yet
    thermocline export items.db | ring.py --not-of node1 node1 node2 node3 node4 > surplus.stream
        a deletion of each item that this ring does not give to node1

Both streams can be sent to a running server; they end with a no-op, which it answers with MN. The names are those of the ring: of nutcracker.yml, or HOST:PORT where
servers have no names.
"""

from __future__ import annotations

import argparse
import base64
import sys

from uhashring import HashRing


def items(stream):
    """Each item of the stream: key, whether it is in base64, its line, its value with the line end."""
    while line := stream.readline():
        words = line.split()
        if words[:1] != [b"ms"]:
            continue  # deletions and no-ops
        value = stream.read(int(words[2]))
        stream.readline()
        yield words[1], b"b" in words[3:], words[3:], value


def main() -> None:
    parser = argparse.ArgumentParser(description="Picks out of an export what belongs to one node of a ketama ring.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--of", metavar="NODE")
    which.add_argument("--not-of", metavar="NODE")
    parser.add_argument("nodes", nargs="+", metavar="NODE")
    options = parser.parse_args()
    if (options.of or options.not_of) not in options.nodes:
        parser.error("the node is none of the ring's")
    ring, output = HashRing(options.nodes, hash_fn="ketama"), sys.stdout.buffer
    kept = 0
    for word, is_base64, flags, value in items(sys.stdin.buffer):
        key = base64.b64decode(word) if is_base64 else word
        owner = ring.get_node(key.decode("latin-1") if not key.isascii() else key.decode())
        if options.of and owner == options.of:
            # Without its CAS, which the new server gives anew; ME: only where there is no newer one.
            kept += 1
            more = b" ".join(flag for flag in flags if flag[:1] not in b"EMq")
            output.write(b"ms %s %d %s ME q\r\n%s\r\n" % (word, len(value), more, value))
        elif options.not_of and owner != options.not_of:
            kept += 1
            output.write(b"md %s%s q\r\n" % (word, b" b" if is_base64 else b""))
    output.write(b"mn\r\n")
    print(f"{kept} items", file=sys.stderr)


if __name__ == "__main__":
    main()
