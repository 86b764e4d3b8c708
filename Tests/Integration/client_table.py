"""The table of `make clients`: which client, in which version and protocol, ran how many tests with which result.

A test of a client has the marker `client`, and counts as one; or it reports what a program of many tests did, with
`report`. CLIENTS=all runs those as well that need other languages.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections import defaultdict

ALL = os.environ.get("CLIENTS", "") == "all"

#: The name of the property in which a test hands over its row.
ROW = "client"


def report(record_property, client: str, version: str, protocol: str, passed: int, failed: int) -> None:
    """For a test that ran a program of many tests."""
    record_property(ROW, (client, version, protocol, passed, failed))


def installed_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "?"


class Table:
    """Gathers the rows and writes them at the end."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
        self.marks: dict[str, tuple[str, str, str]] = {}

    def pytest_collection_finish(self, session) -> None:
        for item in session.items:
            for mark in item.iter_markers("client"):
                name, protocol = mark.args
                version = mark.kwargs.get("version") or installed_version(mark.kwargs.get("package", name))
                self.marks[item.nodeid] = (name, version, protocol)

    def pytest_runtest_logreport(self, report) -> None:
        rows = [value for name, value in report.user_properties if name == ROW]
        for client, version, protocol, passed, failed in rows if report.when == "call" else []:
            count = self.counts[client, version, protocol]
            count[0] += passed
            count[1] += failed
        row = self.marks.get(report.nodeid)
        if row and not rows and (report.when == "call" or report.failed) and not report.skipped:
            self.counts[row][report.failed] += 1

    def pytest_terminal_summary(self, terminalreporter) -> None:
        if not ALL or not self.counts:
            return
        lines = [("client", "version", "protocol", "tests", "result")]
        for key in sorted(self.counts, key=lambda row: (row[0].lower(), row)):
            passed, failed = self.counts[key]
            lines.append((*key, str(passed + failed), f"{failed} FAILED" if failed else "passed"))
        widths = [max(len(line[column]) for line in lines) for column in range(5)]
        terminalreporter.section("clients")
        for line in lines:
            terminalreporter.write_line("  ".join(word.ljust(width) for word, width in zip(line, widths)).rstrip())
