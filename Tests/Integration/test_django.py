"""The users' own case, examples/django: a page under `cache_page`, sessions, and reports in the cold tier, over restarts of the
cache server."""

from __future__ import annotations

import http.cookiejar
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

import server as harness
from places import wait_for

pytestmark = [pytest.mark.cold_tier, pytest.mark.client("Django, the example", "text", package="Django")]

PROJECT = harness.ROOT / "examples" / "django"


class Site:
    """The example project, run by its own manage.py."""

    def __init__(self, directory, cache_port: int):
        self.log_path = directory / "django.log"
        self.port = harness.free_port()
        self.visitor = self.new_visitor()
        self.environment = {**os.environ, "CACHE_LOCATION": f"127.0.0.1:{cache_port}", "PYTHONUNBUFFERED": "1",
                            "PYTHONDONTWRITEBYTECODE": "1"}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "runserver", "--noreload", "--skip-checks", f"127.0.0.1:{self.port}"],
                cwd=PROJECT, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @staticmethod
    def new_visitor() -> urllib.request.OpenerDirector:
        """Somebody with cookies of his own."""
        return urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))

    def page(self, path: str = "", visitor: urllib.request.OpenerDirector | None = None) -> str:
        with (visitor or self.visitor).open(f"http://127.0.0.1:{self.port}/{path}", timeout=20) as response:
            return response.read().decode()

    def manage(self, *words: str) -> str:
        done = subprocess.run([sys.executable, "manage.py", *words], cwd=PROJECT, env=self.environment, timeout=50,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

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
def site(request, make_server, tmp_path):
    """`site` with a parameter: the megabytes of RAM of its cache server."""
    cache = make_server(memory=getattr(request, "param", 64)).start()
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


@pytest.mark.bounded(90)
def test_sessions_outlive_restarts(site):
    assert [site.page("visits/") for _ in range(3)] == [f"Your visit number {i}" for i in (1, 2, 3)]
    site.cache.terminate()
    site.cache.start()
    assert site.page("visits/") == "Your visit number 4"
    assert site.page("visits/", site.new_visitor()) == "Your visit number 1"
    time.sleep(2)  # the durability interval of one second passes
    site.cache.kill()
    site.cache.start()
    assert site.page("visits/") == "Your visit number 5"


@pytest.mark.bounded(120)
@pytest.mark.parametrize("site", [2], indirect=True)
def test_weekly_reports_come_from_the_cold_tier(site):
    said = "".join(site.manage("weekly_reports", str(year)) for year in (2025, 2026))
    sizes = [int(size.replace(",", "")) for size in re.findall(r"are there: ([\d,]+) bytes", said)]
    assert len(sizes) == 2 and min(sizes) > 1_500_000 and said.count("computing week") == 104
    weeks = [(year, week) for year in (2025, 2026) for week in range(1, 53, 2)]

    def figure(name: str) -> int:
        with site.cache.connect() as connection:
            return int(connection.statistics("tiers")[name])

    before = figure("cold_hits")
    pages = {at: site.page("%d/week/%d/" % at) for at in weeks}
    # RAM has room for a fraction; and nothing is computed again.
    assert figure("cold_hits") - before > 20 and "computing week" not in site.log
    assert all(f"Week {week} of {year}" in pages[year, week] for year, week in weeks)
    wait_for(lambda: figure("unsaved_bytes") == 0)
    site.cache.kill()
    site.cache.start()
    assert all(site.page("%d/week/%d/" % at) == pages[at] for at in weeks) and "computing week" not in site.log
