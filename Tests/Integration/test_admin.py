"""The page for administrators: who is answered, the metrics against a real parser and against `stats`, health, and that
no client of it can hold it up."""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

import server as harness

pytestmark = pytest.mark.skipif(harness.is_memcached(harness.BINARY), reason="memcached has no such page")

TOKEN = "a-token-of-24-characters"


def admin_port(server: harness.Server) -> int:
    return int(re.findall(r"dashboard on http://[^ ]*:(\d+)/", server.log)[-1])


def ask(server: harness.Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", admin_port(server), timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def metrics(server: harness.Server) -> dict[tuple, float]:
    """(name, labels as sorted pairs) -> value."""
    status, headers, body = ask(server, "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        assert family.documentation and family.type != "unknown", family.name
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def figure(found: dict[tuple, float], name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


@pytest.fixture
def served(make_server):
    return make_server("--admin-listen", "127.0.0.1:0").start()


def wait_for(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


# --- Metrics

#: What memcached_exporter 0.15 shows of a memcached with a second tier, with its types.
EXPORTER = """
up:gauge uptime_seconds:counter time_seconds:gauge version:gauge process_user_cpu_seconds:counter
process_system_cpu_seconds:counter read_bytes:counter written_bytes:counter current_connections:gauge
max_connections:gauge connections:counter connections_rejected:counter connections_yielded:counter
connections_listener_disabled:counter current_bytes:gauge limit_bytes:gauge commands:counter current_items:gauge
items:counter items_evicted:counter items_reclaimed:counter item_too_large:counter item_no_memory:counter
direct_reclaims:counter lru_crawler_enabled:gauge lru_crawler_sleep:gauge lru_crawler_to_crawl:gauge
lru_crawler_maintainer_thread:gauge lru_crawler_hot_percent:gauge lru_crawler_warm_percent:gauge
lru_crawler_hot_max_factor:gauge lru_crawler_warm_max_factor:gauge lru_crawler_starts:counter
lru_crawler_reclaimed:counter lru_crawler_items_checked:counter lru_crawler_moves_to_cold:counter
lru_crawler_moves_to_warm:counter lru_crawler_moves_within_lru:counter malloced_bytes:gauge slab_current_items:gauge
slab_items_age_seconds:gauge slab_items_crawler_reclaimed:counter slab_items_evicted:counter
slab_items_evicted_nonzero:counter slab_items_evicted_time_seconds:counter slab_items_evicted_unfetched:counter
slab_items_expired_unfetched:counter slab_items_outofmemory:counter slab_items_reclaimed:counter
slab_items_tailrepairs:counter slab_items_moves_to_cold:counter slab_items_moves_to_warm:counter
slab_items_moves_within_lru:counter slab_hot_items:gauge slab_warm_items:gauge slab_cold_items:gauge
slab_hot_age_seconds:gauge slab_warm_age_seconds:gauge slab_lru_hits:counter slab_chunk_size_bytes:gauge
slab_chunks_per_page:gauge slab_current_pages:gauge slab_current_chunks:gauge slab_chunks_used:gauge
slab_chunks_free:gauge slab_chunks_free_end:gauge slab_mem_requested_bytes:counter slab_commands:counter
extstore_compact_lost:counter extstore_compact_rescued:counter extstore_compact_skipped:counter
extstore_pages_allocated:counter extstore_pages_evicted:counter extstore_pages_reclaimed:counter
extstore_pages_free:gauge extstore_pages_used:gauge extstore_objects_evicted:counter extstore_objects_read:counter
extstore_objects_written:counter extstore_objects_used:gauge extstore_bytes_evicted:counter
extstore_bytes_written:counter extstore_bytes_read:counter extstore_bytes_used:counter
extstore_bytes_fragmented:gauge extstore_bytes_limit:gauge extstore_io_queue_depth:gauge accepting_connections:gauge
""".split()


@pytest.mark.cold_tier
def test_every_metric_of_memcached_exporter_is_there_with_its_type(served):
    with served.connect() as connection:
        connection.set("a", b"1")
        connection.get("a")
    _, _, body = ask(served, "/metrics")
    types = {family.name: family.type for family in text_string_to_metric_families(body.decode())}
    missing = [one for one in EXPORTER if types.get("memcached_" + one.split(":")[0]) != one.split(":")[1]]
    assert not missing, missing


@pytest.mark.cold_tier
def test_metrics_say_what_the_commands_did(served):
    with served.connect() as connection:
        for i in range(30):
            connection.set(f"k{i}", b"x" * 100)
        for i in range(40):
            connection.get(f"k{i}")
        connection.call(b"incr none 1\r\n")
        connection.call(b"delete k0\r\n")
        connection.call(b"touch k1 100\r\n")
        connection.call(b"cas k2 0 0 1 18446744073709551615\r\nx\r\n")
        found = metrics(served)
        statistics = connection.statistics()
    assert figure(found, "memcached_commands_total", command="get", status="hit") == 30
    assert figure(found, "memcached_commands_total", command="get", status="miss") == 10
    # A cas is counted as a set as well by memcached, and not by the metric.
    assert figure(found, "memcached_commands_total", command="set", status="hit") == 30
    assert figure(found, "memcached_commands_total", command="cas", status="badval") == 1
    assert figure(found, "memcached_commands_total", command="incr", status="miss") == 1
    assert figure(found, "memcached_commands_total", command="delete", status="hit") == 1
    assert figure(found, "memcached_commands_total", command="touch", status="hit") == 1
    assert figure(found, "memcached_current_items") == int(statistics["curr_items"]) == 29
    assert figure(found, "memcached_version", version="1.6.45") == 1
    assert figure(found, "thermocline_hits_total", tier="hot") == 31
    assert figure(found, "thermocline_misses_total") == 10
    assert sum(value for (name, _), value in found.items() if name == "memcached_slab_current_items") == 29


@pytest.mark.cold_tier
def test_metrics_and_stats_tiers_are_the_same_figures(make_server):
    """2 MB of RAM and 6 MB of items: most are demoted, and read from the file again."""
    server = make_server("--admin-listen", "127.0.0.1:0", memory=2).start()
    keys = [f"p{i % 3}:{i}" for i in range(3000)]
    # No page of the file holds these: whoever reads them waits for a reader.
    large = [f"large:{i}" for i in range(150)]
    with server.connect() as connection:
        for key in large:
            connection.set(key, b"v" * 20_000)
        for key in keys:
            connection.set(key, b"v" * 2000)
        wait_for(lambda: connection.statistics("tiers")["unsaved_queue"] == "0")
        for first in range(0, 150, 50):
            assert len(connection.get_all(large[first:first + 50], "get")) == 50
        for first in range(0, 600, 50):
            assert len(connection.get_all(keys[first:first + 50], "get")) == 50
        tiers = {name: int(value) for name, value in connection.statistics("tiers").items()}
        found = metrics(server)
        latency = connection.statistics("latency")
    assert tiers["cold_hits"] > 100 and tiers["promotions"] > 100 and tiers["demotions"] > 1000
    assert tiers["demotions"] == tiers["demotions_memory"] + tiers["demotions_idle"]
    for statistic, name, labels in [
            ("hot_hits", "thermocline_hits_total", {"tier": "hot"}), ("cold_hits", "thermocline_hits_total", {"tier": "cold"}),
            ("promotions", "thermocline_promotions_total", {}), ("cold_index_bytes", "thermocline_index_bytes", {"tier": "cold"}),
            ("cold_evictions", "thermocline_evictions_total", {"tier": "cold", "cause": "limit"}),
            ("demotions_memory", "thermocline_demotions_total", {"cause": "memory"}),
            ("cold_file_bytes", "thermocline_cold_file_bytes", {}), ("hot_memory_limit", "thermocline_hot_memory_limit_bytes", {})]:
        assert figure(found, name, **labels) == tiers[statistic], statistic
    assert figure(found, "thermocline_flush_lag_seconds") <= 2
    # Each wait for the file is timed.
    waited = figure(found, "thermocline_command_duration_seconds_count", command="get", tier="cold")
    assert waited >= 100 and int(latency["get:cold:timed"]) == waited
    assert 1 < float(latency["get:cold:p50_us"]) <= float(latency["get:cold:p99_us"]) < 10_000_000


def test_latencies_are_sampled_and_reset(served):
    with served.connect() as connection:
        connection.set("a", b"1")
        for _ in range(20):
            connection.send(b"get a\r\n" * 100)
            for _ in range(300):
                connection.read_line()
        wait_for(lambda: connection.get("a") and int(connection.statistics("latency")["get:hot:timed"]) > 0)
        latency = connection.statistics("latency")
        assert 0 < float(latency["get:hot:p50_us"]) <= float(latency["get:hot:max_us"])
        connection.statistics("reset")
        assert int(connection.statistics("latency")["get:hot:timed"]) <= 1


def test_the_exposition_passes_promtool(served):
    promtool = shutil.which("promtool")
    assert promtool, "promtool is not installed (Debian: prometheus)"
    with served.connect() as connection:
        connection.set("a", b"1")
    checked = subprocess.run([promtool, "check", "metrics"], input=ask(served, "/metrics")[2], capture_output=True)
    # Its style guide dislikes names that memcached_exporter has; what it can't read would be an error.
    complaints = [line for line in checked.stderr.decode().splitlines() if not line.startswith("memcached_")]
    assert checked.returncode in (0, 3) and not complaints, checked.stderr.decode()


# --- Health

@pytest.mark.cold_tier
def test_it_is_healthy_and_ready(served):
    status, _, body = ask(served, "/healthz")
    assert status == 200 and body == b"yes: worker 0 answers\nyes: worker 1 answers\nyes: items are swept\n"
    wait_for(lambda: ask(served, "/readyz")[0] == 200)
    assert ask(served, "/readyz")[2] == b"yes: accepts connections\nyes: start scan is over\nyes: file takes writes\n"


# --- Who is answered

def test_it_is_off_unless_asked_for(make_server):
    server = make_server().start()
    assert "dashboard" not in server.log
    threads = subprocess.run(["ps", "-T", "-p", str(server.pid)], capture_output=True, text=True).stdout
    assert "NIO" not in threads


def refusal(server: harness.Server) -> str:
    server.port = harness.free_port()
    server.spawn()
    assert server.process.wait(20) == 78, server.log
    server.process = None
    harness.running.discard(server)
    return server.log


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "*:0", "10.1.2.3:0"])
def test_beyond_loopback_it_wants_a_token(make_server, address):
    assert "a token is needed" in refusal(make_server("--admin-listen", address))


@pytest.mark.parametrize("address", ["nonsense:port", "127.0.0.1:99999", "[::1", ""])
def test_a_bad_address_is_named(make_server, address):
    said = refusal(make_server("--admin-listen", address))
    assert "--admin-listen" in said and "127.0.0.1:11280" in said


@pytest.mark.parametrize("content", ["", "short", "with spaces in the token"])
def test_a_token_that_can_be_guessed_is_refused_and_not_shown(make_server, tmp_path, content):
    path = tmp_path / "token"
    path.write_text(content + "\n")
    said = refusal(make_server("--admin-listen", "127.0.0.1:0", "--admin-token-file", str(path)))
    assert "admin.token-file" in said and (not content or content not in said)


def test_with_a_token_it_answers_anywhere_and_only_to_its_owner(make_server, tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    server = make_server("--admin-listen", "0.0.0.0:0", "--admin-token-file", str(path)).start()
    for page in ("/", "/metrics", "/status.json", "/history.json", "/advice", "/dashboard.js"):
        status, headers, body = ask(server, page)
        assert status == 401 and headers["www-authenticate"].startswith("Basic") and b"thermocline_" not in body
        assert ask(server, page, Authorization=f"Bearer {TOKEN}x")[0] == 401
        assert ask(server, page, Authorization=f"Bearer {TOKEN}", Host="cache.example")[0] == 200
    basic = base64.b64encode(f"admin:{TOKEN}".encode()).decode()
    assert ask(server, "/metrics", Authorization=f"Basic {basic}")[0] == 200
    assert ask(server, "/healthz")[0] == 200
    assert TOKEN not in server.log
    assert TOKEN not in ask(server, "/status.json", Authorization=f"Bearer {TOKEN}")[2].decode()
    assert TOKEN.encode() not in open(f"/proc/{server.pid}/cmdline", "rb").read()


def test_a_foreign_name_is_not_answered_without_a_token(served):
    assert ask(served, "/metrics", Host="attacker.example")[0] == 421
    assert ask(served, "/metrics", Host="localhost:1")[0] == 200


def test_every_answer_forbids_what_the_page_does_not_need(served):
    for page in ("/", "/metrics", "/nothing"):
        headers = ask(served, page)[1]
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
    status, headers, body = ask(served, "/", method="HEAD")
    assert status == 200 and int(headers["content-length"]) > 1000 and not body
    assert ask(served, "/", method="DELETE")[0] == 405


def test_prefixes_are_no_secret_way_around_the_ban_on_lists_of_keys(make_server):
    server = make_server("--admin-listen", "127.0.0.1:0", "-X").start()
    with server.connect() as connection:
        connection.set("secret:1", b"1")
        for _ in range(20):
            connection.send(b"get secret:1\r\n" * 100)
            for _ in range(300):
                connection.read_line()
    assert json.loads(ask(server, "/status.json")[2])["prefixes"] == []


def test_the_most_used_prefixes_come_first(served):
    with served.connect() as connection:
        def prefixes() -> list[dict]:
            # All of it is in the sample, or nothing.
            for _ in range(20):
                connection.send(b"get often:1\r\n" * 70 + b"get seldom:1\r\n" * 10 + b"get alone\r\n" * 20)
                for _ in range(100):
                    connection.read_line()
            return json.loads(ask(served, "/status.json")[2])["prefixes"]

        wait_for(lambda: len(prefixes()) >= 2)
        first, second = prefixes()[:2]
    assert (first["prefix"], second["prefix"]) == ("often", "seldom") and first["hits"] == 0
    assert first["share"] > second["share"] and first["reads"] > second["reads"]


# --- Clients that mean it ill

def test_slow_and_many_clients_hold_nobody_up(served):
    port = admin_port(served)
    # A header that never ends, requests that never end, and more connections than there may be.
    endless = socket.create_connection(("127.0.0.1", port), timeout=5)
    endless.sendall(b"GET / HTTP/1.1\r\nX: ")
    started = time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() < started + 10:
            endless.sendall(b"a" * 4096)
            time.sleep(0.01)
    endless.close()
    slow = [socket.create_connection(("127.0.0.1", port), timeout=15) for _ in range(40)]
    for one in slow:
        one.sendall(b"GET /metrics HTTP/1.1\r\n")
    assert ask(served, "/healthz")[0] == 200
    many = [socket.create_connection(("127.0.0.1", port), timeout=15) for _ in range(200)]
    with served.connect() as connection:
        connection.set("a", b"1")
        assert connection.get("a") == b"1"
    # Those beyond the limit are closed at once, those within it when their time is over, whatever they send meanwhile.
    assert sum(1 for one in many if is_closed(one, 2)) >= 200 - 64
    started = time.monotonic()
    while not is_closed(slow[0], 0.5):
        slow[0].sendall(b"X")
        assert time.monotonic() - started < 20
    for one in slow + many:
        one.close()
    wait_for(lambda: ask(served, "/metrics")[0] == 200)
    served.terminate()


def is_closed(one: socket.socket, seconds: float) -> bool:
    one.settimeout(seconds)
    try:
        return one.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("bytes_", [b"\r\n\r\n", b"\x00" * 500, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x80\x0b" + b"\0" * 30,
                                    b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                                    b"GET / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
def test_what_is_no_request_ends_the_connection_alone(served, bytes_):
    with socket.create_connection(("127.0.0.1", admin_port(served)), timeout=12) as one:
        one.sendall(bytes_)
        one.shutdown(socket.SHUT_WR)
        while one.recv(65536):
            pass
    assert ask(served, "/healthz")[0] == 200


def test_a_request_that_is_under_way_does_not_keep_it_from_ending(served):
    with socket.create_connection(("127.0.0.1", admin_port(served)), timeout=5) as one:
        one.sendall(b"GET /metrics HTTP/1.1\r\nHost: x")
        started = time.monotonic()
        served.terminate(number=signal.SIGTERM)
        assert time.monotonic() - started < 5
