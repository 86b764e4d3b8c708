"""The examples run as they are: Sinatra with Dalli, PHP's sessions, the reader that is safe from stampedes, Prometheus.
(examples/django has test_django.py.)"""

from __future__ import annotations

import http.cookiejar
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing

import pytest

import server as harness
from places import wait_for
from programs import debian_version

EXAMPLES = harness.ROOT / "examples"


class WebServer:
    """A program of an example that serves HTTP; and one visitor of it, who keeps cookies."""

    def __init__(self, directory, command: list[str], folder, port: int, **environment: str):
        self.log_path = directory / "web.log"
        self.port = port
        self.visitor = self.new_visitor()
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)

    def __enter__(self) -> "WebServer":
        deadline = time.monotonic() + 30
        while True:
            try:
                self.page("no-such-page", self.new_visitor())
            except urllib.error.HTTPError:
                return self
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, self.log
                time.sleep(0.05)
            else:
                return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait(20)

    @staticmethod
    def new_visitor() -> urllib.request.OpenerDirector:
        return urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def page(self, path: str = "", visitor=None) -> str:
        with (visitor or self.visitor).open(f"http://127.0.0.1:{self.port}/{path}", timeout=20) as response:
            return response.read().decode()


def is_back(web: WebServer, path: str) -> bool:
    """Whether a new visitor gets the page: the first answer after a restart of the cache may be an error of the client."""
    try:
        return bool(web.page(path, web.new_visitor()))
    except urllib.error.HTTPError:
        return False


# -- Sinatra and Dalli -------------------------------------------------------------------------------------------

@pytest.mark.all_clients
@pytest.mark.client("Sinatra, Rack sessions", "binary", version=debian_version("ruby-sinatra"))
@pytest.mark.bounded(120)
def test_sinatra_keeps_pages_and_sessions_over_a_restart(place, tmp_path):
    port = harness.free_port()
    command = ["ruby", "app.rb", "-p", str(port), "-o", "127.0.0.1", "-s", "webrick", "-e", "production"]
    with WebServer(tmp_path, command, EXAMPLES / "sinatra", port, CACHE_LOCATION=place.address) as web:
        first = web.page("2026")
        assert "The lake in 2026" in first and web.page() == first
        assert [web.page("visits") for _ in range(3)] == [f"Your visit number {i}" for i in (1, 2, 3)]
        place.settle()
        assert web.page() == first and web.page("visits") == "Your visit number 4"
        place.restart()
        wait_for(lambda: is_back(web, "visits"))
        assert web.page() == first and web.page("visits") == "Your visit number 5"
        assert web.page("visits", web.new_visitor()) == "Your visit number 1"
        assert web.log.count("computing the report") == 1, web.log


# -- PHP's sessions ----------------------------------------------------------------------------------------------

@pytest.mark.all_clients
@pytest.mark.client("PHP sessions", "binary", version=debian_version("php8.2-memcached") or debian_version("php-memcached"))
@pytest.mark.bounded(120)
def test_php_keeps_sessions_over_a_restart(place, tmp_path):
    port = harness.free_port()
    command = ["php", "-d", f"session.save_path={place.address}", "-S", f"127.0.0.1:{port}"]
    with WebServer(tmp_path, command, EXAMPLES / "php-sessions", port, PHP_INI_SCAN_DIR=":.") as web:
        said = [web.page() for _ in range(3)]
        assert [re.search(r"number (\d+)", one)[1] for one in said] == ["1", "2", "3"], web.log
        since = said[0].split(";")[1]
        place.settle()
        assert web.page() == f"Your visit number 4;{since}"
        place.server.terminate()
        with pytest.raises(urllib.error.HTTPError, match="503"):
            web.page()
        place.server.start()
        wait_for(lambda: is_back(web, ""))
        assert web.page() == f"Your visit number 5;{since}"
        stranger = web.new_visitor()
        assert "number 1;" in web.page("", stranger) and "number 2;" in web.page("", stranger)

        # Two requests of one visitor at once: the second waits for the lock, and none is lost.
        threads = [threading.Thread(target=web.page) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert web.page() == f"Your visit number 14;{since}", web.log


# -- the reader that is safe from stampedes ----------------------------------------------------------------------

def load_reader():
    specification = importlib.util.spec_from_file_location("stampede_reader", EXAMPLES / "stampede" / "reader.py")
    module = importlib.util.module_from_spec(specification)
    # Its dataclass looks its module up.
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


reader = load_reader()


class Readers:
    """Many readers of one key, each with its connection and thread."""

    def __init__(self, place, count: int = 20):
        self.place = place
        self.count = count
        self.computations = 0
        self.lock = threading.Lock()

    def compute(self) -> bytes:
        with self.lock:
            self.computations += 1
            number = self.computations
        time.sleep(0.3)
        return b"value %d" % number

    def read(self, **settings) -> list[bytes]:
        found = []

        def one() -> None:
            with closing(reader.Cache("127.0.0.1", self.place.port, timeout=20)) as cache:
                found.append(reader.fetch(cache, "page", self.compute, **settings))

        threads = [threading.Thread(target=one) for _ in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == self.count, "a reader has failed"
        return found


def test_of_many_readers_one_computes(place):
    readers = Readers(place)
    assert set(readers.read()) == {b"value 1"} and readers.computations == 1
    place.settle()
    assert set(readers.read()) == {b"value 1"} and readers.computations == 1

    with closing(reader.Cache("127.0.0.1", place.port)) as cache:
        cache.invalidate("page", 60)
        place.settle()
        found = readers.read()
        assert sorted(found) == [b"value 1"] * 19 + [b"value 2"] and readers.computations == 2
        place.settle()
        assert set(readers.read()) == {b"value 2"} and readers.computations == 2

        # It is within 60 s of its expiry: one computes anew, the others have a hit.
        cache.fill("page", b"old", 30, cache.read("page", 30, 0).cas)
        place.settle()
        found = readers.read()
        assert sorted(found) == [b"old"] * 19 + [b"value 3"] and readers.computations == 3


def test_a_value_that_was_invalidated_while_it_was_computed_is_stale(place):
    with closing(reader.Cache("127.0.0.1", place.port)) as winner, closing(reader.Cache("127.0.0.1", place.port)) as other:
        won = winner.read("page", 30, 0)
        assert won.has_won and won.value is None
        winner.fill("page", b"first", 600, won.cas)
        other.invalidate("page", 60)
        won = winner.read("page", 30, 0)
        assert won.has_won and won.is_stale and won.value == b"first"
        place.settle()
        other.invalidate("page", 60)
        winner.fill("page", b"of the past", 600, won.cas)
        place.settle()
        again = other.read("page", 30, 0)
        assert again.value == b"of the past" and again.is_stale and again.has_won


@pytest.mark.cold_tier
def test_a_lease_outlives_a_restart_and_ends(place):
    with closing(reader.Cache("127.0.0.1", place.port)) as cache:
        assert cache.read("page", 2, 0).has_won
        begin = time.monotonic()
    place.restart()
    with closing(reader.Cache("127.0.0.1", place.port)) as cache:
        second = cache.read("page", 2, 0)
        assert not second.has_won and second.value is None or time.monotonic() - begin > 1
        # The winner never fills: after its two seconds another wins.
        wait_for(lambda: cache.read("page", 2, 0).has_won)


def test_the_reader_is_a_program_too(place):
    done = subprocess.run([EXAMPLES / "stampede" / "reader.py", place.address, "--threads", "20"], capture_output=True, text=True,
                          timeout=50)
    assert done.returncode == 0, done.stderr
    counts = [re.match(r"([a-z ]+): 20 readers, computed (\d) times, (\d) different", line).groups() for line in done.stdout.splitlines()]
    assert counts == [("nothing there", "1", "1"), ("a hit", "0", "1"), ("invalidated", "1", "2")]


# -- Prometheus --------------------------------------------------------------------------------------------------

PROMETHEUS = EXAMPLES / "prometheus"
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


@needs_promtool
def test_prometheus_accepts_config_and_rules_and_raises_each_alert():
    for words in (["check", "config", "prometheus.yml"], ["test", "rules", "rules.test.yml"]):
        done = subprocess.run(["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stdout + done.stderr
    alerts = re.findall(r"alert: (\w+)", (PROMETHEUS / "thermocline.rules.yml").read_text())
    readme = (PROMETHEUS / "README.md").read_text()
    tested = (PROMETHEUS / "rules.test.yml").read_text()
    assert len(alerts) > 5 and all(f"| {alert} |" in readme and f"alertname: {alert}\n" in tested for alert in alerts)


def admin_address(server) -> str:
    return re.findall(r"http://(127\.0\.0\.1:\d+)/", server.log)[-1]


def test_every_metric_that_the_rules_name_is_there(make_server):
    server = make_server("--admin-listen", "127.0.0.1:0").start()
    with urllib.request.urlopen(f"http://{admin_address(server)}/metrics", timeout=20) as response:
        there = set(re.findall(r"^(\w+)[{ ]", response.read().decode(), re.MULTILINE))
    rules = (PROMETHEUS / "thermocline.rules.yml").read_text()
    named = set(re.findall(r"\b(?:thermocline|memcached)_\w+", rules + (PROMETHEUS / "README.md").read_text()))
    assert len(named) > 8 and named <= there, named - there


@pytest.mark.all_clients
@pytest.mark.client("Prometheus", "HTTP", version=debian_version("prometheus"))
@pytest.mark.bounded(120)
def test_prometheus_reads_a_server_and_its_rules_have_values(make_server, tmp_path):
    server = make_server("--admin-listen", "127.0.0.1:0").start()
    with server.connect() as connection:
        connection.set("key", b"value")
        for name in ("prometheus.yml", "thermocline.rules.yml"):
            text = (PROMETHEUS / name).read_text()
            text = text.replace("127.0.0.1:11280", admin_address(server)).replace("15s", "1s").replace("[5m]", "[10s]")
            (tmp_path / name).write_text(text)
        port = harness.free_port()
        command = ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
                   f"--web.listen-address=127.0.0.1:{port}"]
        with WebServer(tmp_path, command, tmp_path, port) as web:

            def value(expression: str) -> float | None:
                for _ in range(5):
                    connection.get("key"), connection.get("absent")
                try:
                    answer = json.loads(web.page("api/v1/query?" + urllib.parse.urlencode({"query": expression})))
                except urllib.error.HTTPError as error:
                    assert error.code == 503  # it has not read its data yet
                    return None
                results = answer["data"]["result"]
                return float(results[0]["value"][1]) if results else None

            wait_for(lambda: value("thermocline:hit_ratio") == pytest.approx(0.5, abs=0.2), 60)
            assert value('up{job="thermocline"}') == 1 and value("thermocline_cold_writable") == 1
            assert value("ALERTS") is None
            rules = json.loads(web.page("api/v1/rules"))["data"]["groups"][0]["rules"]
            assert len(rules) > 8 and {rule["health"] for rule in rules} == {"ok"}, rules
