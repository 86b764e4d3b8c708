"""`thermocline bench`: what it says of a load, and what it refuses."""

from __future__ import annotations

import json
import subprocess

import pytest

import server as harness
from places import COLD, wait_for
from server import BINARY, Server


def bench(*words, status: int = 0, port: int | None = None) -> tuple[str, str]:
    """What it prints, and what it says on standard error."""
    target = [f"127.0.0.1:{port}"] if port else []
    done = subprocess.run([BINARY, "bench", *target, *map(str, words)], capture_output=True, text=True, timeout=60, env=harness.ENVIRONMENT)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done.stdout, done.stderr


def figures(*words, status: int = 0, port: int) -> dict:
    return json.loads(bench("--json", *words, status=status, port=port)[0])


@pytest.fixture
def server(make_server):
    return make_server().start()


def test_reads_and_writes_are_counted_and_checked(server):
    said = figures("--keys", 2000, "--requests", 20_000, "--writes", 25, "--pipeline", 8, "--connections", 7, "--threads", 2, port=server.port)
    assert said["requests"] == said["reads"] + said["writes"] == 20_000
    assert 4000 < said["writes"] < 6000
    assert said["hit_ratio"] == 1 and said["wrong"] == said["errors"] == said["misses"] == 0
    assert 0 < said["p50_us"] <= said["p99_us"] <= said["p999_us"] <= said["max_us"] * 1.02
    assert said["rate"] == pytest.approx(said["requests"] / said["seconds"], rel=0.1)
    with server.connect() as connection:
        counted = connection.statistics()
    assert int(counted["cmd_get"]) == said["reads"] and int(counted["cmd_set"]) == said["writes"] + 2000
    # The same seed asks for the same.
    again = [figures("--keys", 2000, "--requests", 3000, "--seed", seed, "--no-fill", port=server.port)["writes"] for seed in (5, 5, 6)]
    assert again[0] == again[1] != again[2]


@pytest.mark.cold_tier
def test_values_of_many_sizes_are_checked_in_both_tiers(make_server):
    server = make_server(*COLD, memory=2).start()
    said = figures("--keys", 5000, "--value-size", "0-4000", "--distribution", "zipf:1.1", "--seconds", 1, port=server.port)
    assert said["wrong"] == said["errors"] == 0 and said["hit_ratio"] > 0.99
    assert said["seconds"] < 3
    with server.connect() as connection:
        assert int(connection.statistics("tiers")["cold_hits"]) > 0


def test_text_is_for_people(server):
    said, told = bench("--keys", 500, "--seconds", 0.3, "--writes", 0, port=server.port)
    assert [line.split("  ")[0] for line in said.splitlines()] == ["Requests", "Rate", "Latency", "Hits", "Wrong values", "Errors"]
    assert "100.00%" in said and told == "Storing 500 items\n"
    said, told = bench("--keys", 500, "--seconds", 0.3, "--writes", 100, "--no-fill", "--rate", 1000, port=server.port)
    assert "nothing was read" in said and told == ""
    assert 100 < int(said.split()[1].replace(",", "")) < 500


def test_wrong_values_and_misses_are_found(server):
    with server.connect() as connection:
        connection.set("item:" + "0" * 15, b"x" * 100)
    said = figures("--keys", 2, "--no-fill", "--writes", 0, "--requests", 1000, status=1, port=server.port)
    assert said["errors"] == 0 and said["wrong"] + said["misses"] == 1000 and said["wrong"] > 300 and said["misses"] > 300


def test_a_server_that_dies_is_told(server):
    running = subprocess.Popen([BINARY, "bench", f"127.0.0.1:{server.port}", "--json", "--seconds", "30", "--keys", "100"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=harness.ENVIRONMENT)
    with server.connect() as connection:
        wait_for(lambda: int(connection.statistics()["cmd_get"]) > 1000)
    server.kill()
    said = json.loads(running.communicate(timeout=20)[0])
    assert running.returncode == 1 and said["errors"] == 50 and said["seconds"] < 25


def test_ctrl_c_ends_it_with_what_it_knows(server):
    running = subprocess.Popen([BINARY, "bench", f"127.0.0.1:{server.port}", "--json", "--seconds", "30", "--keys", "100"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=harness.ENVIRONMENT)
    with server.connect() as connection:
        wait_for(lambda: int(connection.statistics()["cmd_get"]) > 1000)
    running.send_signal(2)
    said = json.loads(running.communicate(timeout=20)[0])
    assert running.returncode == 0 and said["requests"] > 1000 and said["errors"] == 0


def test_a_memcached_is_loaded_too(tmp_path):
    server = Server(tmp_path, binary=harness.PEER).start()
    try:
        said = figures("--keys", 500, "--requests", 5000, port=server.port)
        assert said["wrong"] == said["errors"] == 0 and said["hit_ratio"] == 1
    finally:
        server.kill()


def test_other_machines_are_spared(server):
    # This address is no loopback address, and leads to this machine all the same.
    other = f"0.0.0.0:{server.port}"
    _, told = bench(other, "--requests", 100, status=78)
    assert "is not this machine; --yes-load-remote loads it all the same" in told
    with server.connect() as connection:
        assert connection.statistics()["cmd_set"] == "0"
    bench(other, "--requests", 100, "--keys", 100, "--yes-load-remote")


@pytest.mark.parametrize("words", [["--keys", "0"], ["--keys", "200000000"], ["--connections", "0"], ["--pipeline", "100000"], ["--threads", "0"],
                                   ["--seconds", "0"], ["--seconds", "nan"], ["--writes", "101"], ["--value-size", "10-5"], ["--value-size", "x"], ["--requests", "0"],
                                   ["--distribution", "normal"], ["--distribution", "zipf:0"], ["--rate", "0"], ["a:b"], ["tls:127.0.0.1"],
                                   ["--value-size", "1000000", "--pipeline", "1000"], ["--keys", "50000000", "--distribution", "zipf"]])
def test_loads_without_sense_are_refused(words):
    said, told = bench(*words, status=78)
    assert said == "" and len(told.splitlines()) == 1
