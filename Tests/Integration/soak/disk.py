"""Disks that can be full without harm to anybody else."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import server as harness


class SmallDisk:
    """A file system of its own in RAM; only root may make one."""

    name = "a file system of 160 MiB"

    def __init__(self, directory: Path):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "none", str(directory)], capture_output=True)
        if made.returncode != 0:
            raise PermissionError(made.stderr.decode(errors="replace").strip())

    def fill(self, server: harness.Server) -> None:
        """Takes all the room that there is, as somebody else would."""
        with (self.directory / "others").open("wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    pass

    def free(self, server: harness.Server) -> None:
        (self.directory / "others").unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.directory)], check=False)


class Quota:
    """Files of the server may not be longer than a page: every write behind that fails, for anybody who is not root too."""

    name = "a limit on the length of files"

    def __init__(self, directory: Path):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def fill(self, server: harness.Server) -> None:
        self.limit(server, 4096)

    def free(self, server: harness.Server) -> None:
        self.limit(server, resource.RLIM_INFINITY)

    @staticmethod
    def limit(server: harness.Server, length: int) -> None:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (length, resource.RLIM_INFINITY))

    def close(self) -> None:
        pass


def make_disk(directory: Path) -> SmallDisk | Quota:
    try:
        return SmallDisk(directory)
    except (PermissionError, FileNotFoundError):
        return Quota(directory)
