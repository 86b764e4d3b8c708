"""The documents: every command in them is run (documents.py says how), links lead somewhere, and what they call a setting or
an option is one."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import server as harness
from documents import DOCUMENTS, FENCE, LANGUAGES, Page, blocks

pytestmark = pytest.mark.cold_tier

#: Options of other programs: the compiler, the benchmarks, the load generator; memcached's that say something of it alone.
OF_OTHERS = {"--static-swift-stdlib", "--workloads", "--json", "--pipeline", "--server-pid", "--license", "--memcached"}

WITH_BLOCKS = [document for document in DOCUMENTS if blocks(document)]


@pytest.fixture
def page(tmp_path):
    made = Page(tmp_path)
    made.begin()
    yield made
    made.end()


@pytest.mark.parametrize("document", [pytest.param(one, id=one.stem) for one in WITH_BLOCKS])
def test_every_command_does_what_the_document_says(page, document):
    for block in blocks(document):
        if not block.reason:
            page.run(block)


@pytest.mark.parametrize("document", [pytest.param(one, id=one.stem) for one in DOCUMENTS])
def test_every_block_says_what_it_is(document):
    text = document.read_text()
    assert text.count("```") == 2 * len(FENCE.findall(text)), "a fence is open, or no fence"
    without = FENCE.sub("", text)
    # Behind an empty line and not in a list, that is code without a fence.
    stray = [match[1] for match in re.finditer(r"\n\n    (\S.*)", without) if not re.search(r"(?:^|\n)(?:[-*]|\d\.) [^\n]*(?:\n  [^\n]*)*$", without[:match.start()])]
    assert stray == []
    for block in blocks(document):
        assert block.language in LANGUAGES, f"{block.place}: {block.language}"
        match block.reason:
            case ("not run", reason):
                assert block.language in ("sh", "console") and reason.startswith("needs "), block.place
            case ("run by", path):
                test = (harness.ROOT / path).read_text()
                lines = [line.removeprefix("$ ").partition("   #")[0].strip() for line in block.text.splitlines()]
                assert document.name in test or all(line in test for line in lines), f"{block.place}: {path} does not run {lines}"


def test_the_pictures_are_those_of_their_program(tmp_path):
    """And each is in a document."""
    folder = harness.ROOT / "docs" / "pictures"
    (tmp_path / "draw.py").write_text((folder / "draw.py").read_text())
    subprocess.run([sys.executable, tmp_path / "draw.py"], check=True)
    drawn = {path.name: path.read_text() for path in tmp_path.glob("*.svg")}
    assert len(drawn) == 4 and drawn == {path.name: path.read_text() for path in folder.glob("*.svg")}
    concepts = (harness.ROOT / "docs" / "concepts.md").read_text()
    assert all(f"pictures/{name}" in concepts for name in drawn)


def help_of(*words: str) -> str:
    return subprocess.run([harness.BINARY, *words, "--help-hidden"], capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def names() -> dict[str, set[str]]:
    """The settings, and the options of all commands."""
    settings, path = set(), []
    for line in subprocess.run([harness.BINARY, "print-config"], capture_output=True, text=True, env=harness.ENVIRONMENT).stdout.splitlines():
        if match := re.match(r"( *)#?([\w-]+):", line):
            path = [*path[:len(match[1]) // 2], match[2]]
            settings.add(".".join(path))
    settings |= set(re.findall(r"^\| `([a-z.-]+)` \|", (harness.ROOT / "docs" / "settings.md").read_text(), re.MULTILINE))
    commands = re.findall(r"^  ([a-z-]+)(?: \(default\))?  ", help_of("help") or help_of(), re.MULTILINE)
    texts = [help_of(command) for command in ("serve", *commands)] + [subprocess.run([harness.BINARY, "-h"], capture_output=True, text=True).stdout]
    return {"settings": settings, "options": set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", "\n".join(texts)))}


@pytest.mark.parametrize("document", [pytest.param(one, id=one.stem) for one in DOCUMENTS])
def test_what_is_called_a_setting_or_an_option_is_one(document, names):
    text = FENCE.sub("", document.read_text())
    unknown = []
    for code in re.findall(r"`([^`\n]+)`", text):
        if match := re.fullmatch(r"((?:hot|cold|tls|admin|log)\.[a-z-]+(?:\.[a-z-]+)*)(?::? .*)?", code):
            if match[1] not in names["settings"] | {"cold.admission", "cold.promotion"}:
                unknown.append(code)
        elif code.startswith("--"):
            option = re.match(r"--[a-z][a-z-]*", code)[0]
            # It may be shortened, as memcached's.
            if option not in OF_OTHERS and not any(known.startswith(option) for known in names["options"]):
                unknown.append(code)
        elif match := re.fullmatch(r"THERMOCLINE_([A-Z_]{3,})(?:=.*)?", code):
            key = match[1].lower().replace("_", ".").replace("-", ".")
            if key not in {name.replace("-", ".") for name in names["settings"]} and match[1] not in ("FUZZ",):
                unknown.append(code)
    assert unknown == []
