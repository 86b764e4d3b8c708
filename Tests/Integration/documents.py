"""The blocks of code in the documents, and the place in which their commands are run.

Every block is fenced and says what it is:

    console     commands behind `$ `, each with what it prints. A line `...` stands for any lines; numbers, sizes, bars and
                blanks are of the moment and need not be the same. Status 0, unless the next command is `echo $?`.
    sh          a script, every command of which has to succeed
    sql         statements for `items.db`, by a program that may only read
    yaml        settings, which check-config takes, or (scrape_configs) a part of a config for Prometheus. With a comment
                `# NAME.yaml` in its first line it is written to that file, for the commands that follow
    python      compiled
    text        what no program reads

A comment before a block says why it is not run, or by which test: `<!-- not run: needs systemd -->`,
`<!-- run by: Tests/Integration/test_many_machines.py -->`; that test has to contain each of its commands, or
the name of the document from which it takes them.

The commands of a page are run in their order, in what is `/var/lib/thermocline` to them, where a server serves from `items.db`,
with some hundred items. Only this is other than it stands there: the ports are free ones (`PORTS`), folders of the system are
folders in there (`FOLDERS`), and some programs have stand-ins (stand_ins.py).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import server as harness
from places import wait_for

DOCUMENTS = [harness.ROOT / "README.md", *sorted((harness.ROOT / "docs").glob("*.md"))]
PORTS = ("11211", "11212", "11213", "11280")
FOLDERS = re.compile(r"(?<![\w.])/(?=(?:var/lib/thermocline|etc/thermocline|run/thermocline|backup)\b)")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
REASON = re.compile(r"<!-- (not run|run by): (.*?) -->\s*\Z")
LANGUAGES = {"console", "sh", "sql", "yaml", "python", "text"}


@dataclass(frozen=True)
class Block:
    document: Path
    line: int
    language: str
    text: str
    #: Why it is not run here: ("not run", reason) or ("run by", test).
    reason: tuple[str, str] | None

    @property
    def place(self) -> str:
        return f"{self.document.relative_to(harness.ROOT)}:{self.line}"

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """Each command of a console block and the lines that it prints."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line.startswith("> ") and found and not found[-1][1]:
                found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
            else:
                found[-1][1].append(line)
        return found


def blocks(document: Path) -> list[Block]:
    text = document.read_text()
    found = []
    for match in FENCE.finditer(text):
        indent, language, content = match.groups()
        content = re.sub(f"^{indent}", "", content, flags=re.MULTILINE)
        reason = REASON.search(text[:match.start()])
        found.append(Block(document, text.count("\n", 0, match.start()) + 1, language, content, reason and (reason[1], reason[2])))
    return found


def pattern(line: str) -> str:
    """What a printed line has to look like."""
    parts = re.split(r"(\d+(?:[.,]\d+)*|[█▉▊▋▌▍▎▏]+|\b[KMG]?i?B\b|\s+)", line.strip())
    loose = {True: "", False: ""}
    for index in range(1, len(parts), 2):
        token = parts[index]
        if token[0].isdigit():
            parts[index] = r"\d+(?:[.,]\d+)*"
        elif token[0] in "█▉▊▋▌▍▎▏":
            parts[index] = "[█▉▊▋▌▍▎▏]*"
        elif token.isspace():
            parts[index] = r"\s+"
        else:
            parts[index] = "[KMG]?i?B"
    parts[0::2] = [re.escape(part) for part in parts[0::2]]
    return "".join(parts)


def fits(printed: list[str], expected: list[str]) -> bool:
    """Whether the lines are as expected, where `...` stands for any number of lines."""
    if not expected:
        return not printed
    if expected[0].strip() == "...":
        return any(fits(printed[index:], expected[1:]) for index in range(len(printed) + 1))
    return bool(printed) and bool(re.fullmatch(pattern(expected[0]), printed[0].strip())) and fits(printed[1:], expected[1:])


@dataclass
class Page:
    """A server and its folders, for the commands of one document."""

    #: What is `/` in them.
    root: Path
    ports: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        programs = self.root / ".programs"
        programs.mkdir(parents=True)
        for name in ("thermocline", "make", "systemctl"):
            (programs / name).symlink_to(Path(__file__).with_name("stand_ins.py"))
        (programs / "ring.py").symlink_to(harness.ROOT / "examples" / "many-machines" / "ring.py")
        for name in ("var/lib/thermocline", "etc/thermocline", "run/thermocline", "backup"):
            (self.root / name).mkdir(parents=True)
        self.ports = {port: str(harness.free_port()) for port in PORTS}
        # What a command does not say.
        settings = {"THERMOCLINE_PORT": self.ports["11211"], "THERMOCLINE_LISTEN": "127.0.0.1"}
        self.environment = harness.ENVIRONMENT | settings | {
            "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(self.root), "PAGE_PROGRAM": str(harness.BINARY),
            "PAGE_ROOT": str(harness.ROOT), "STATE_DIRECTORY": str(self.folder), "LC_ALL": "C.UTF-8"}

    @property
    def folder(self) -> Path:
        return self.root / "var/lib/thermocline"

    def begin(self) -> None:
        shutil.copy(harness.ROOT / "examples" / "thermocline.yaml", self.root / "etc/thermocline")
        self.bash("thermocline -p 11211 -t 2 --cold-path items.db --durability-interval 50ms")
        items = [("user:1", b"hello", 0), *((f"user:{i}", b"x" * 40, 0) for i in range(2, 80)),
                 *((f"session:{i}", b"s" * 565, 86400) for i in range(200)), *((f"page:{i}", b"p" * 1700 * (i % 9 + 1), 900) for i in range(60))]
        with harness.Connection(int(self.ports["11211"])) as connection:
            # Those of the users have an older version in the file too.
            for written in (items[:20], items):
                for key, value, expiry in written:
                    connection.set(key, value, expiry=expiry)
                wait_for(lambda: connection.statistics("tiers")["unsaved_bytes"] == "0")

    def rewritten(self, text: str) -> str:
        text = re.sub(rf"(?<!\d)({'|'.join(PORTS)})(?!\d)", lambda match: self.ports[match[1]], text)
        text = text.replace(".build/release/thermocline", "thermocline")
        return FOLDERS.sub(f"{self.root}/", text)

    def bash(self, script: str) -> subprocess.CompletedProcess:
        return subprocess.run(["bash", "-c", self.rewritten(script)], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)

    def run_console(self, block: Block) -> None:
        commands = block.commands
        mark = "-- the next command --"
        script = "".join(f"(exit ${{status:-0}})\n{command}\nstatus=$?; echo; echo '{mark}' $status\n" for command, _ in commands)
        outputs = re.split(rf"\n?{mark} (\d+)\n", self.bash(script).stdout)
        assert len(outputs) == 2 * len(commands) + 1, f"{block.place}: {outputs}"
        for index, (command, expected) in enumerate(commands):
            printed, status = outputs[2 * index], outputs[2 * index + 1]
            follower = commands[index + 1][0] if index + 1 < len(commands) else ""
            assert status == "0" or follower == "echo $?", f"{block.place}: status {status} of {command}: {printed}"
            expected = [self.rewritten(line) for line in expected if line.strip()]
            lines = [line for line in printed.splitlines() if line.strip()]
            assert not expected or fits(lines, expected), f"{block.place}: {command}\nprints\n{printed}\nand not\n" + "\n".join(expected)

    def run(self, block: Block) -> None:
        match block.language:
            case "console":
                self.run_console(block)
            case "sh":
                done = self.bash(f"set -eo pipefail\n{block.text}")
                assert done.returncode == 0, f"{block.place}: status {done.returncode}: {done.stdout}"
            case "sql":
                done = subprocess.run(["sqlite3", "-readonly", "-bail", "items.db"], input=block.text, cwd=self.folder, capture_output=True, text=True)
                assert done.returncode == 0 and done.stdout, f"{block.place}: {done.stderr}"
            case "yaml":
                self.check_yaml(block)
            case "python":
                compile(block.text, block.place, "exec")

    def check_yaml(self, block: Block) -> None:
        if block.text.startswith("scrape_configs:"):
            program = ["promtool", "check", "config"]
            if not shutil.which("promtool"):
                return
        else:
            program = [str(harness.BINARY), "check-config"]
        name = re.match(r"# (\w+\.yaml)\n", block.text)
        path = self.folder / (name[1] if name else "block.yaml")
        path.write_text(self.rewritten(block.text))
        done = subprocess.run([*program, path], capture_output=True, text=True, env=self.environment)
        assert done.returncode == 0, f"{block.place}: {done.stderr}{done.stdout}"

    def end(self) -> None:
        self.bash("systemctl stop thermocline")
