"""docs/moving-in.md: its two command lines start both servers with the same settings; and links in all documents lead somewhere."""

from __future__ import annotations

import re
import shlex

import server as harness
from server import Server

DOCUMENTS = [harness.ROOT / "README.md", *sorted((harness.ROOT / "docs").glob("*.md")), *sorted((harness.ROOT / "examples").glob("*/README.md"))]


def test_the_command_line_is_memcacheds_and_more(tmp_path):
    page = (harness.ROOT / "docs" / "moving-in.md").read_text()
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
