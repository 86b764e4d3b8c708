"""The steps of a Dockerfile, done in empty Debian systems where no container engine is; and what it says of the program,
started as an engine would: as process 1, with a network of its own, in the image's environment."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from roots import Failed, Root


@dataclass
class Stage:
    """From one FROM to the next: the image that it begins with, its name, and its instructions."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)


def stages(text: str) -> list[Stage]:
    lines = re.sub(r"\\\n", "", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    found: list[Stage] = []
    for word, _, rest in (line.strip().partition(" ") for line in lines if line.strip()):
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+)(?: AS (\S+))?", rest).groups()
            found.append(Stage(base, name or ""))
        else:
            found[-1].instructions.append((word, rest.strip()))
    return found


class Image:
    """What comes of a stage."""

    def __init__(self, root: Root):
        self.root = root
        self.folder = "/"
        self.user = "root"
        self.variables: dict[str, str] = {}
        self.said: dict[str, str] = {}

    def build(self, stage: Stage, context: Path, others: dict[str, "Image"]) -> None:
        for word, rest in stage.instructions:
            match word:
                case "RUN":
                    self.root.run(rest, folder=self.folder, more=self.variables)
                case "WORKDIR":
                    self.folder = rest
                    self.root.inside(rest).mkdir(parents=True, exist_ok=True)
                case "COPY":
                    self.copy(rest, context, others)
                case "USER":
                    self.user = rest
                case "ENV":
                    self.variables |= dict(one.split("=", 1) for one in shlex.split(rest))
                case "VOLUME" | "EXPOSE" | "STOPSIGNAL" | "HEALTHCHECK" | "ENTRYPOINT" | "CMD":
                    self.said[word] = rest
                case _:
                    raise Failed(f"an instruction that this does not know: {word}")

    def copy(self, rest: str, context: Path, others: dict[str, "Image"]) -> None:
        *sources, target = shlex.split(rest)
        origin = context
        if sources[0].startswith("--from="):
            origin = others[sources.pop(0).removeprefix("--from=")].root.folder
        place = self.root.inside(Path(self.folder) / target)
        for source in sources:
            found = origin / source.lstrip("/")
            if found.is_dir():
                shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True)
            else:
                place = place / found.name if target.endswith("/") or place.is_dir() else place
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, place)

    @property
    def identity(self) -> str:
        """User and group as numbers."""
        for line in self.root.inside("etc/passwd").read_text().splitlines():
            name, _, user, group, *_ = line.split(":")
            if self.user in (name, user):
                return f"{user}:{group}"
        raise Failed(f"no user {self.user} in the image")

    def health_check(self) -> list[str]:
        return json.loads(self.said["HEALTHCHECK"].partition("CMD ")[2])


#: A new network has a loopback that is down.
LOOPBACK_UP = "import fcntl, os, socket, struct, sys; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 1)); os.execvp(sys.argv[1], sys.argv[1:])"


class Container:
    """A running image."""

    def __init__(self, image: Image, *options: str, more: dict[str, str] | None = None):
        self.image = image
        command = json.loads(image.said["ENTRYPOINT"]) + (list(options) or json.loads(image.said["CMD"]))
        before = ["unshare", "--net", "--pid", "--fork", sys.executable, "-c", LOOPBACK_UP]
        self.output = image.root.log.open("ab")
        self.starter = subprocess.Popen(
            image.root.words(command, user=image.identity, folder=image.folder, before=before), stdin=subprocess.DEVNULL,
            stdout=self.output, stderr=self.output, env=image.root.environment(image.variables | (more or {})))
        self.process = self.first_process()

    def first_process(self) -> int:
        children = Path(f"/proc/{self.starter.pid}/task/{self.starter.pid}/children")
        deadline = time.monotonic() + 20
        while not (found := children.read_text().split()):
            if self.starter.poll() is not None or time.monotonic() > deadline:
                raise Failed("the image's program does not start")
            time.sleep(0.01)
        return int(found[0])

    def execute(self, command: list[str], text: str = "") -> subprocess.CompletedProcess:
        words = self.image.root.words(command, user=self.image.identity, folder=self.image.folder,
                                      before=["nsenter", f"--net=/proc/{self.process}/ns/net"])
        return subprocess.run(words, input=text, capture_output=True, text=True, timeout=60,
                              env=self.image.root.environment(self.image.variables))

    def wait_until_healthy(self, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while (done := self.execute(self.image.health_check())).returncode:
            if self.starter.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the health check: status {done.returncode}, {done.stderr}")
            time.sleep(0.1)

    def stop(self) -> int:
        """As `docker stop`; the program's status."""
        number = signal.Signals[self.image.said.get("STOPSIGNAL", "SIGTERM")]
        subprocess.run(["kill", f"-{number.value}", str(self.process)], check=True)
        return self.starter.wait(120)

    def kill(self) -> None:
        if self.starter.poll() is None:
            subprocess.run(["kill", "-9", str(self.process)], stderr=subprocess.DEVNULL)
            self.starter.wait(20)
        self.output.close()
