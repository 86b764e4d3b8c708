"""A server whose settings all stand in a file, so that a reload can change each of them."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import server as harness


#: Two values of each setting that a reload applies. Those that would make commands fail, as they are told to, do not.
LIVE = {
    "udp-reply-datagrams": ("4", "8"), "max-connections": ("200", "300"), "reject-at-maximum": ("true", "false"),
    "requests-per-event": ("20", "3"), "idle-timeout": ("0", "1h"), "disable-flush-all": ("false", "true"),
    "enable-shutdown": ("false", "true"), "disable-dumping": ("false", "true"), "disable-watch": ("false", "true"),
    "log.level": ("notice", "trace"), "log.format": ("text", "json"), "log.keys": ("false", "true"),
    "hot.memory": ("16m", "48m"), "hot.max-item-size": ("1m", "2m"), "hot.no-evictions": ("false", "true"),
    "hot.favor-small": ("true", "false"), "hot.policy": ("s3fifo", "lru"), "hot.demote-after": ("0", "1s"), "cold.interval": ("1s", "20ms"),
    "cold.start-wait": ("500ms", "0"), "cold.when-slow": ("wait", "drop"), "cold.promotion.reads": ("1", "0"),
    "hot.high-watermark": ("100", "70"), "hot.low-watermark": ("70", "50"), "cold.durability": ("interval", "shutdown"),
    "cold.admission.min-ttl": ("0", "1h"), "cold.admission.max-item-size": ("0", "1k"),
    "cold.admission.seen-before": ("false", "true"), "cold.promotion.window": ("0", "10s"),
    "buffers.total": ("64m", "32m"), "buffers.per-connection": ("1m", "256k"), "buffers.stall-timeout": ("1m", "0"),
    "cold.reads.queue": ("16384", "1000"), "cold.reads.timeout": ("5s", "1m"), "cold.reads.overload": ("miss", "error"),
    "cold.stop-timeout": ("100s", "10s"),
    "cold.limit": ("1g", "32m"), "cold.admission.write-budget": ("0", "100k"),
}
#: What else has to change with a setting for commands to go on as before.
TOGETHER = {"hot.no-evictions": {"hot.memory": "256m"}}


def program(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([harness.BINARY, *arguments], capture_output=True, text=True, timeout=60,
                          env=harness.ENVIRONMENT, **options)


class ConfiguredServer(harness.Server):
    """`settings`: key -> value as YAML has it; `rules`: lines of YAML below `rules:`."""

    def __init__(self, directory: Path, settings: dict[str, str], rules: list[str] | None = None):
        super().__init__(directory)
        self.settings = {"listen": "127.0.0.1", "threads": "2", "cold.path": str(self.cold_path),
                         "pid-file": str(directory / "pid")} | settings
        self.rules = rules or []

    @property
    def config(self) -> Path:
        return self.directory / "config.yaml"

    def write(self) -> None:
        """Sections are written in one line each, so that they may come in any order."""
        sections: dict = {}
        for key, value in (self.settings | {"port": str(self.port)}).items():
            inner = sections
            *above, name = key.split(".")
            for part in above:
                inner = inner.setdefault(part, {})
            inner[name] = value

        def flow(value) -> str:
            if isinstance(value, dict):
                return "{" + ", ".join(f"{name}: {flow(inner)}" for name, inner in value.items()) + "}"
            return value

        lines = [f"{name}: {flow(value)}" for name, value in sections.items()]
        if self.rules:
            lines += ["rules:", *self.rules]
        # Whole or not at all: a reload may read it at any moment.
        fresh = self.config.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.rename(self.config)

    def arguments(self) -> list[str]:
        self.write()
        return [str(self.binary), "--config", str(self.config)]

    def change(self, settings: dict[str, str] | None = None, rules: list[str] | None = None) -> None:
        self.settings |= settings or {}
        if rules is not None:
            self.rules = rules
        self.write()

    def reload(self, expected: int = 0) -> str:
        done = program("reload", "--config", str(self.config))
        assert done.returncode == expected, (done, self.log[-2000:])
        return done.stdout + done.stderr

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)
