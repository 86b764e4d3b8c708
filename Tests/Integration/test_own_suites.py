"""What the authors of clients test against memcached, run against this server: Django, pymemcache, pylibmc and
python-binary-memcached from their source distributions on PyPI, gomemcache as Debian ships it. Items are demoted all the time:
RAM is the least there is, and nothing that was read from the file stays in it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import client_table
import server as harness
from places import COLD
from programs import GO_PATH, GO_SETTINGS, debian_version

pytestmark = [pytest.mark.all_clients, pytest.mark.cold_tier, pytest.mark.bounded(400)]


@pytest.fixture
def served(make_server):
    # The suites set the limit of RAM to 50 MB, which may be raised 16 times at most.
    return make_server(*COLD, memory=4).start()


def unpacked(package: str, directory: Path) -> Path:
    """The source distribution of the version that is installed."""
    version = client_table.installed_version(package)
    directory = directory / "source"
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:",
                    "--dest", directory, f"{package}=={version}"], check=True, timeout=300)
    archive, = directory.glob("*.tar.gz")
    subprocess.run(["tar", "--extract", "--gzip", "--file", archive, "--directory", directory], check=True)
    folder, = (path for path in directory.iterdir() if path.is_dir())
    return folder


def run_pytest(folder: Path, words: list[str], **environment: str) -> tuple[int, int, str]:
    """Passed, failed, and what was said. The tests' own options (coverage) are left out."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "--rootdir", folder, *words],
                          cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)
    counts = {name: int(number) for number, name in re.findall(r"(\d+) (passed|failed|error)", done.stdout.splitlines()[-1])}
    return counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0), done.stdout[-3000:]


def report(record_property, package: str, protocol: str, passed: int, failed: int) -> None:
    client_table.report(record_property, f"{package}: its own tests", client_table.installed_version(package), protocol, passed, failed)


def test_django(served, tmp_path, record_property):
    tests = unpacked("Django", tmp_path) / "tests"
    backends = {name: {"BACKEND": f"django.core.cache.backends.memcached.{name}", "LOCATION": f"127.0.0.1:{served.port}"}
                for name in ("PyMemcacheCache", "PyLibMCCache")}
    locmem = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    (tests / "thermocline_settings.py").write_text(f"from test_sqlite import *\nCACHES = {locmem | backends!r}\n")
    done = subprocess.run([sys.executable, "runtests.py", "--settings=thermocline_settings", "--parallel=1", "cache", "-k", "MemcachedCache",
                           "-k", "PyMemcacheCache", "-k", "PyLibMCCache"], cwd=tests, capture_output=True, text=True, timeout=300)
    ran = int(re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE)[1])
    failed = sum(int(number) for number in re.findall(r"(?:failures|errors)=(\d+)", done.stderr))
    report(record_property, "Django", "text", ran - failed, failed)
    assert done.returncode == 0 and ran > 100, done.stderr[-3000:]


def test_pymemcache(served, tmp_path, record_property):
    folder = unpacked("pymemcache", tmp_path)
    passed, failed, said = run_pytest(folder, ["pymemcache/test/test_integration.py", "--server", "127.0.0.1", "--port", str(served.port)])
    report(record_property, "pymemcache", "text", passed, failed)
    assert failed == 0 and passed > 90, said


def test_pylibmc(served, tmp_path, record_property):
    # Its tests lie beside a package of its name that is not compiled.
    folder = unpacked("pylibmc", tmp_path) / "tests"
    # test_autoconf looks for a service of a cloud on port 11211.
    passed, failed, said = run_pytest(folder, [str(folder), "--ignore", str(folder / "test_autoconf.py")], MEMCACHED_HOST="127.0.0.1",
                                      MEMCACHED_PORT=str(served.port))
    report(record_property, "pylibmc", "text and binary", passed, failed)
    assert failed == 0 and passed > 30, said


def test_python_binary_memcached(served, make_server, tmp_path, record_property):
    folder = unpacked("python-binary-memcached", tmp_path)
    # It looks for servers at two ports and a unix socket.
    other = make_server(*COLD, name="other", memory=4).start()
    for path in (folder / "test").glob("*.py"):
        if path.name != "test_server_parsing.py":
            text = path.read_text().replace("11211", str(served.port)).replace(":5000", f":{other.port}")
            path.write_text(text.replace("/tmp/memcached.sock", f"127.0.0.1:{served.port}"))
    # The others want users and passwords, TLS or IPv6 at places of their own.
    files = [f"test/test_{name}.py" for name in ("compression", "raw_data", "simple_functions", "errors", "error_handling", "pickler", "server_parsing")]
    passed, failed, said = run_pytest(folder, files, MEMCACHED_HOST="127.0.0.1")
    report(record_property, "python-binary-memcached", "binary", passed, failed)
    assert failed == 0 and passed > 30, said


def test_gomemcache(served, tmp_path, record_property):
    folder = tmp_path / "src" / "memcache"
    folder.mkdir(parents=True)
    for path in (GO_PATH / "src/github.com/bradfitz/gomemcache/memcache").glob("*.go"):
        (folder / path.name).write_text(path.read_text().replace("localhost:11211", f"127.0.0.1:{served.port}"))
    # One of its tests starts a memcached of PATH on a unix socket.
    program = tmp_path / "bin" / "memcached"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{harness.BINARY}" -m 2 --cold-path "{tmp_path}/unix.db" "$@"\n')
    program.chmod(0o755)
    environment = os.environ | GO_SETTINGS | {"GOPATH": str(tmp_path), "GOCACHE": str(tmp_path / "cache"),
                                              "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["go", "test", "-v", "memcache"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    passed, failed = done.stdout.count("--- PASS"), done.stdout.count("--- FAIL")
    client_table.report(record_property, "gomemcache: its own tests", debian_version("golang-github-bradfitz-gomemcache-dev"), "text",
                        passed, failed)
    assert done.returncode == 0 and passed >= 2 and "--- SKIP" not in done.stdout, done.stdout
