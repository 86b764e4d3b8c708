"""The users' own case: a Django page cached by `cache_page`, over two restarts of the cache server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

import server as harness

pytestmark = pytest.mark.cold_tier

PROJECT = harness.ROOT / "examples" / "django"


class Site:
    """The example project, run by its own manage.py."""

    def __init__(self, directory, cache_port: int):
        self.log_path = directory / "django.log"
        self.port = harness.free_port()
        environment = {**os.environ, "CACHE_LOCATION": f"127.0.0.1:{cache_port}", "PYTHONUNBUFFERED": "1",
                       "PYTHONDONTWRITEBYTECODE": "1"}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "runserver", "--noreload", "--skip-checks", f"127.0.0.1:{self.port}"],
                cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def page(self, path: str = "") -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=20) as response:
            return response.read().decode()

    def wait_until_serving(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                self.page("no-such-page")
            except urllib.error.HTTPError as error:
                assert error.code == 404
                return
            except OSError:
                assert self.process.poll() is None, self.log
                assert time.monotonic() < deadline, self.log
                time.sleep(0.02)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def computed(self) -> int:
        return self.log.count("computing the report")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(20)


@pytest.fixture
def site(make_server, tmp_path):
    cache = make_server().start()
    made = Site(tmp_path, cache.port)
    made.cache = cache
    try:
        made.wait_until_serving()
        yield made
    finally:
        made.stop()


@pytest.mark.bounded(90)
def test_a_cached_page_is_computed_once_over_two_restarts(site):
    first = site.page()
    assert "The lake in 2026" in first
    assert site.page() == first
    assert site.computed == 1, site.log

    site.cache.terminate()
    site.cache.start()
    assert site.page() == first
    assert site.computed == 1, site.log

    other = site.page("1999/")
    assert "The lake in 1999" in other
    assert site.computed == 2
    time.sleep(2)  # the durability interval of one second passes
    site.cache.kill()
    site.cache.start()
    assert site.page() == first
    assert site.page("1999/") == other
    assert site.computed == 2, site.log


def test_a_flushed_cache_computes_again(site):
    first = site.page()
    with site.cache.connect() as connection:
        assert connection.call(b"flush_all\r\n") == b"OK"
    assert site.page() != first
    assert site.computed == 2
