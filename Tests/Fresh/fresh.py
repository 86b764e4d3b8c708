#!/usr/bin/env python3
"""Does what a newcomer does, on empty Debian systems: so that nothing which a machine happens to have hides a missing step.

On one system, with only the Swift toolchain and `make`: the two commands of the README, and `make deb`. On two others the
steps of the Dockerfile; the image is then run. On one more the Debian package. It wants root, debootstrap and a way
to Debian's packages, PyPI and the sources of the Swift packages; it takes what ways this machine has (see `roots`).

    fresh.py [--tests none|short|all|clients] [--only readme|container]... [--source CLONE] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import containerfile
import package
from roots import Failed, Root, Service, free_port

PROJECT = Path(__file__).resolve().parents[2]
PLACE = "/root/thermocline"
#: The shorter form of `make test`: all that it installs and builds, and of the tests those that use each of these things.
SHORT = {
    "SWIFT_TEST_OPTIONS": "--filter SettingsTests --filter SQLiteTests --filter ColdToolsTests",
    "PYTEST_FILES": " ".join(f"Tests/Integration/test_{name}.py" for name in (
        "bad_start", "dashboard", "django", "examples", "instructions", "libmemcached_tools", "load", "programs", "service", "tls")),
}
COMMANDS = {"none": [], "short": ["make test " + " ".join(f'{name}="{value}"' for name, value in SHORT.items())],
            "all": ["make test"], "clients": ["make test", "make clients"]}


class Steps:
    """Says what is done and how long it took."""

    def __init__(self, log: Path):
        self.log = log
        self.begin = time.monotonic()
        self.failures: list[str] = []

    @contextmanager
    def __call__(self, what: str, goes_on: bool = False):
        begin = time.monotonic()
        print(f"{what} ...", end="", flush=True)
        try:
            yield
        except Failed:
            if not goes_on:
                raise
            self.failures.append(what)
            lines = self.log.read_text(errors="replace").splitlines()
            print(" FAILED:", *[line for line in lines if line.startswith(("FAILED ", "ERROR "))], lines[-1], sep="\n  ", flush=True)
        print(f" {time.monotonic() - begin:.0f} s", flush=True)


def readme_commands() -> list[str]:
    section = (PROJECT / "README.md").read_text().split("## Two commands", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^ *(make \w+)", section, re.MULTILINE)


def said_by_line_to_try(machine: Root, service: Service) -> str:
    """`make run` prints a line to try it with: that line, run by bash."""
    line = re.search(r"^ +(exec 3<>/dev/tcp/.*)$", service.said, re.MULTILINE)[1]
    return machine.run(["bash", "-c", line])


def serve(machine: Root, command: str, step: str, steps: Steps, use) -> None:
    with steps(step):
        service = Service(machine, ["/bin/sh", "-c", f"exec {command} PORT={free_port()}"], folder=PLACE)
        try:
            service.wait_until(lambda: "exec 3<>/dev/tcp/" in service.said, command, 3600)
            # The line is printed just before the server starts.
            deadline = time.monotonic() + 20
            while True:
                try:
                    use(service)
                    break
                except Failed:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
            service.interrupt()
        finally:
            service.kill()


def readme(base: Path, work: Path, source: Path, tests: str, steps: Steps) -> Path:
    """The two commands, and the package; where that lies."""
    commands = readme_commands()
    package.expect(commands == ["make run", "make test"], f"the README's two commands are {commands}")
    machine = Root.copy_of(base, work / "machine", steps.log, has_toolchain=True)
    with steps("A clean clone, and `make` from Debian"):
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", source, machine.inside(PLACE)], check=True, cwd="/")
        machine.run("apt-get update -q && apt-get install -y -q --no-install-recommends make")

    def store(service: Service) -> None:
        package.expect("STORED\r\nVALUE greeting 0 5\r\nhello" in said_by_line_to_try(machine, service), "the line to try it with")

    def find(service: Service) -> None:
        port = re.search(r"/dev/tcp/[^/]*/(\d+)", service.said)[1]
        said = machine.run(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'get greeting\\r\\nquit\\r\\n' >&3; cat <&3"])
        package.expect("hello" in said, "the item after a restart")

    serve(machine, commands[0], "`make run` on nothing but a toolchain, a set and a get, Ctrl-C", steps, store)
    serve(machine, commands[0], "`make run` again: the item is still there", steps, find)
    for command in COMMANDS[tests]:
        # Tests that fail are told at the end, with what else there is.
        with steps(f"`{command.partition(' SWIFT')[0]}`", goes_on=True):
            machine.run(command, folder=PLACE, timeout=3 * 3600)
    with steps("`make deb`"):
        machine.run("make deb", folder=PLACE)
    made, = machine.inside(f"{PLACE}/.build/deb").glob("*.deb")
    shutil.copy(made, work)
    machine.unmount()
    return work / made.name


def container(base: Path, work: Path, source: Path, steps: Steps) -> None:
    """The steps of the Dockerfile, and what the image does."""
    context = work / "context"
    # What .dockerignore leaves: a clone without git's own folder.
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", source, context], check=True, cwd="/")
    shutil.rmtree(context / ".git")
    images: dict[str, containerfile.Image] = {}
    for number, stage in enumerate(containerfile.stages((context / "packaging/Dockerfile").read_text())):
        has_toolchain = stage.base.startswith("swift:")
        package.expect(has_toolchain or stage.base.startswith("debian:"), f"what is {stage.base}?")
        with steps(f"Dockerfile: FROM {stage.base}"):
            image = containerfile.Image(Root.copy_of(base, work / f"stage{number}", steps.log, has_toolchain))
            image.build(stage, context, images)
            images[stage.name or "last"] = image
    with steps("The image: its health check, a set, `docker stop`, and the item after the next start"):
        last = images["last"]
        package.expect(last.user not in ("root", "0"), "the image runs as root")
        for script, expected in ((package.SET, "STORED"), (package.GET, "value")):
            running = containerfile.Container(last)
            try:
                running.wait_until_healthy()
                package.expect(expected in running.execute(["bash", "-c", script]).stdout, expected)
                begin = time.monotonic()
                package.expect(running.stop() == 0, "SIGTERM is no clean stop")
                package.expect(time.monotonic() - begin < 10, "a stop takes longer than `docker stop` waits by itself")
            finally:
                running.kill()
        running = containerfile.Container(last, "-l", "127.0.0.1", "-p", "11212")
        try:
            time.sleep(0.5)
            package.expect(running.execute(last.health_check()).returncode != 0, "the health check finds a server where none is")
        finally:
            running.kill()


def inside(arguments, work: Path) -> None:
    steps = Steps(arguments.log)
    chosen = arguments.only or ["readme", "container"]
    base = work / "base"
    with steps("An empty Debian"):
        Root.made(base, steps.log).unmount()
    if "readme" in chosen:
        made = readme(base, work, arguments.source, arguments.tests, steps)
        root = Root.copy_of(base, work / "package", steps.log)
        with steps("The package: installed by apt"):
            package.install(root, made)
        with steps("Its unit, man page and completions"):
            package.look_at(root)
        with steps("Started as its unit says, stopped, started again"):
            package.use(root)
        with steps("Upgraded, removed, purged"):
            package.upgrade_and_remove(root)
    if "container" in chosen:
        container(base, work, arguments.source, steps)
    if steps.failures:
        raise Failed(", ".join(steps.failures))
    print(f"All of it in {(time.monotonic() - steps.begin) / 60:.0f} minutes", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tests", choices=COMMANDS, default="all", help="what of the tests is run there")
    parser.add_argument("--only", action="append", choices=("readme", "container"), help="one part alone")
    parser.add_argument("--source", type=Path, default=PROJECT, help="what is cloned")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the systems are made: some 6 GB")
    parser.add_argument("--log", type=Path, default=PROJECT / ".build/fresh.log", help="what all commands write")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        try:
            inside(arguments, arguments.inside)
            return 0
        except Failed as failure:
            print(f"\nFAILED: {failure}; the end of {arguments.log}:\n", flush=True)
            print("\n".join(arguments.log.read_text(errors="replace").splitlines()[-40:]), flush=True)
            return 1
    if os.geteuid() != 0:
        sys.exit("fresh: it makes mounts and enters other roots, so it needs to be root")
    arguments.log.parent.mkdir(parents=True, exist_ok=True)
    arguments.log.write_bytes(b"")
    work = Path(tempfile.mkdtemp(prefix="fresh-", dir=arguments.folder))
    # All mounts and processes live in namespaces that end with their first process, however it ends.
    child = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
                              sys.executable, __file__, *sys.argv[1:], "--inside", work])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: child.kill())
    try:
        return child.wait()
    finally:
        subprocess.run(["rm", "--recursive", "--force", "--one-file-system", work], check=True)


if __name__ == "__main__":
    sys.exit(main())
