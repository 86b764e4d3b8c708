"""docs/from-memcached.md: its two command lines start both servers with the same settings, and its commands move the items;
and links in all documents lead somewhere."""

from __future__ import annotations

import re
import shlex

import pytest

import server as harness
from documents import Block, Page, blocks
from places import wait_for
from server import Server

PAGE = harness.ROOT / "docs" / "from-memcached.md"

DOCUMENTS = [harness.ROOT / "README.md", *sorted((harness.ROOT / "docs").glob("*.md")), *sorted((harness.ROOT / "examples").glob("*/README.md"))]


def test_the_command_line_is_memcacheds_and_more(tmp_path):
    page = PAGE.read_text()
    theirs, ours = (shlex.split(line) for line in re.findall(r"^((?:memcached|thermocline) +-l .*)$", page, re.MULTILINE))
    assert ours[1:len(theirs)] == theirs[1:] and ours[len(theirs):] == ["--cold-path", "/var/lib/thermocline/items.db", "--cold-limit", "20G"]
    found = []
    for words, binary in ((theirs, harness.PEER), (ours, harness.BINARY)):
        # The harness gives address and port; a file in a directory of the test.
        options = [word.replace("/var/lib/thermocline", str(tmp_path)) for word in words[words.index("-m"):]]
        server = Server(tmp_path / binary.name, *options, binary=binary, cold=False)
        server.arguments = lambda made=server.arguments: [word for word in made() if word != "--no-cold"]
        server.start()
        with server.connect() as connection:
            settings = connection.statistics("settings")
            found.append({name: settings[name] for name in ("maxbytes", "num_threads", "maxconns", "item_size_max", "evictions", "cas_enabled")})
        server.kill()
    assert found[0] == found[1] and found[0]["maxbytes"] == str(1024 << 20)


@pytest.mark.cold_tier
def test_its_commands_move_the_items(tmp_path):
    """One after the other, with a memcached at one address of the page and a server of ours at the other."""
    page = Page(tmp_path / "page")
    page.begin()
    peer = Server(tmp_path / "memcached", "-o", "lru_crawler", binary=harness.PEER, port=int(page.ports["11212"])).start()
    try:
        with peer.connect() as connection:
            for i in range(500):
                connection.set(f"old:{i}", b"value of %d" % i, flags=i, expiry=1000 + i)
            connection.set("user:1", b"what the new server has already")
        moving = [block for block in blocks(PAGE) if block.reason == ("run by", "Tests/Integration/test_moving_in.py") and block.language == "console"]
        taken, filled, back = moving
        page.run(taken)
        with harness.Connection(int(page.ports["11211"])) as connection:
            assert connection.get_all(["old:7", "user:1"], "get") == {"old:7": (b"value of 7", 7, None), "user:1": (b"hello", 0, None)}
            # What is in the file by now, for the export of a stopped server's.
            wait_for(lambda: connection.statistics("tiers")["unsaved_bytes"] == "0")
        with peer.connect() as connection:
            assert connection.call(b"flush_all\r\n") == b"OK"
        page.run(Block(back.document, back.line, back.language, back.text[:back.text.index("$ thermocline export items.db")], None))
        with peer.connect() as connection:
            assert connection.get("session:7") == b"s" * 565 and connection.get("old:499") == b"value of 499"
        page.bash("systemctl stop thermocline")
        page.run(Block(back.document, back.line, back.language, back.text[back.text.index("$ thermocline export items.db"):], None))
        with peer.connect() as connection:
            connection.set("user:1", b"newer")
        page.run(filled)
        page.bash("systemctl start thermocline")
        with harness.Connection(int(page.ports["11211"])) as connection:
            assert connection.get("user:1") == b"newer" and connection.get("old:499") == b"value of 499"
    finally:
        page.end()
        peer.kill()


def anchors(text: str) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_in_documents_lead_somewhere():
    broken = []
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
            if re.match(r"https?:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (document.parent / path).resolve() if path else document
            if not file.exists() or anchor and anchor not in anchors(file.read_text()):
                broken.append(f"{document.relative_to(harness.ROOT)}: {target}")
    assert len(DOCUMENTS) > 8 and broken == []
