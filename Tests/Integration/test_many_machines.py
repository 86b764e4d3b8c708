"""Several servers behind what others use for that: ketama hashing in the client (pymemcache's HashClient, pylibmc) and
nutcracker (twemproxy). All three put a key on the same server. A server that is killed and started again under load has
its keys again, the others notice nothing, and no value is wrong. Nodes are replaced, added and removed as docs/many-machines.md says.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pylibmc
import pytest
from pymemcache.client.base import Client
from pymemcache.client.hash import HashClient
from uhashring import HashRing

import server as harness
from places import wait_for
from programs import debian_version
from server import Server

pytestmark = pytest.mark.cold_tier

INTERVAL = 0.25


class Ketama:
    """The ring of libmemcached and twemproxy for pymemcache."""

    def __init__(self):
        self.ring = HashRing(hash_fn="ketama")

    def add_node(self, node):
        self.ring.add_node(node)

    def remove_node(self, node):
        self.ring.remove_node(node)

    def get_node(self, key):
        return self.ring.get_node(key)


class Proxy:
    """nutcracker before the servers; a server may have a name, which then has its place on the ring."""

    def __init__(self, directory: Path, servers: list[str], auto_eject: bool = False):
        self.port = harness.free_port()
        path = directory / f"nutcracker-{self.port}.yml"
        path.write_text(f"lake:\n  listen: 127.0.0.1:{self.port}\n  hash: md5\n  distribution: ketama\n"
                        f"  auto_eject_hosts: {str(auto_eject).lower()}\n  timeout: 2000\n  server_retry_timeout: 100\n  server_failure_limit: 1\n"
                        "  servers:\n" + "".join(f"    - {one}\n" for one in servers))
        self.process = subprocess.Popen(["nutcracker", "-c", path, "-s", str(harness.free_port()), "-a", "127.0.0.1"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> "Proxy":
        def serves() -> bool:
            with closing(self.client()) as client:
                try:
                    client.get("probe")
                except OSError:
                    return False
                return True

        wait_for(serves)
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait(20)

    def client(self) -> Client:
        return Client(("127.0.0.1", self.port), default_noreply=False, timeout=20)


def node(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


def hashing(servers: list[Server]) -> HashClient:
    """A server that fails is asked again, never given up: else its keys would go to others, and come back old."""
    return HashClient([("127.0.0.1", one.port) for one in servers], hasher=Ketama, default_noreply=False, timeout=20,
                      retry_attempts=1_000_000, retry_timeout=0.1)


def consistent(servers: list[Server]) -> pylibmc.Client:
    return pylibmc.Client([node(one) for one in servers], behaviors={"ketama_weighted": True, "retry_timeout": 1})


@pytest.fixture
def three(make_server):
    """Three servers with so little RAM that most of what is in them lies in their files."""
    return [make_server("--durability-interval", f"{int(INTERVAL * 1000)}ms", name=f"node{i}", memory=4).start() for i in (1, 2, 3)]


KEYS = [f"key{i}" for i in range(900)]


def value_of(key: str) -> bytes:
    return key.encode() * 700


def places(servers: list[Server], keys: list[str]) -> dict[str, int]:
    """On which server each key lies; each on one."""
    found: dict[str, int] = {}
    for index, server in enumerate(servers):
        with server.connect() as connection:
            for key in connection.get_all(keys, "get"):
                assert key not in found, f"{key} lies on two servers"
                found[key] = index
    return found


def wait_until_written(servers: list[Server]) -> None:
    for server in servers:
        with server.connect() as connection:
            wait_for(lambda: int(connection.statistics("tiers")["unsaved_bytes"]) == 0)


# -- one ring ----------------------------------------------------------------------------------------------------

@pytest.mark.all_clients
@pytest.mark.client("nutcracker", "text", version=debian_version("nutcracker"))
def test_all_put_a_key_on_the_same_server(three, tmp_path):
    hashing(three).set_many({key: b"x" for key in KEYS})
    expected = places(three, KEYS)
    assert {list(expected.values()).count(index) > 150 for index in range(3)} == {True}
    with Proxy(tmp_path, [f"{node(one)}:1" for one in three]) as proxy, closing(proxy.client()) as client:
        assert len(client.get_many(KEYS)) == len(KEYS)
    assert len(consistent(three).get_multi(KEYS)) == len(KEYS)
    script = """$client = new Memcached(); $client->setOption(Memcached::OPT_LIBKETAMA_COMPATIBLE, true);
        foreach (array_slice($argv, 2) as $port) $client->addServer('127.0.0.1', (int) $port);
        for ($i = 0; $i < $argv[1]; $i++) if ($client->get("key$i") === 'x') echo '+';"""
    done = subprocess.run(["php", "-r", script, str(len(KEYS)), *(str(one.port) for one in three)], capture_output=True, timeout=20)
    assert done.stdout == b"+" * len(KEYS), done.stdout[-300:] + done.stderr


# -- a server is killed under load -------------------------------------------------------------------------------

@dataclass
class Load:
    """Threads that read `KEYS` and count up keys of their own, and note what they find until they are stopped."""

    make_client: object
    where: dict[str, int]
    victim: int
    problems: list[str] = field(default_factory=list)
    #: Reads that failed or missed, of the killed server's keys.
    missed: int = 0
    reads: int = 0
    found_again: set[str] = field(default_factory=set)
    killed_at: float = 0
    started_at: float = 0
    stopping: bool = False

    def is_disturbed(self, key: str) -> bool:
        return self.where[key] == self.victim

    def read_all(self, seed: int) -> None:
        client = self.make_client()
        order = KEYS[seed::2] + KEYS[:seed:2]
        while not self.stopping:
            for key in order:
                if self.stopping:
                    return
                begin = time.monotonic()
                value = self.attempt(client.get, key)
                self.reads += 1
                if value == value_of(key):
                    if self.started_at and begin > self.started_at:
                        self.found_again.add(key)
                elif value is not None:
                    self.problems.append(f"a wrong value of {key}: {value[:40]!r}")
                elif self.is_disturbed(key) and self.killed_at:
                    self.missed += 1
                else:
                    self.problems.append(f"{key} of a server that runs is missing")

    def attempt(self, call, key: str, *more):
        """None if the client raises, as each does in its own way for a server that is down."""
        try:
            return call(key, *more)
        except Exception as error:
            if not (self.is_disturbed(key) and self.killed_at):
                self.problems.append(f"{key} of a server that runs: {error!r}")
            return None

    def count_up(self, keys: list[str]) -> None:
        """Each key's value only rises. A read finds the last that was stored, on the killed server one of the last interval."""
        client = self.make_client()
        history: dict[str, list[tuple[float, int]]] = {key: [(0.0, 0)] for key in keys}
        tried = dict.fromkeys(keys, 0)
        while not self.stopping:
            for key in keys:
                value = self.attempt(client.get, key)
                found = int(value) if value is not None else None
                at_least = history[key][-1][1]
                if self.is_disturbed(key) and self.killed_at:
                    # What was stored a second before the kill (four intervals) is in the file.
                    old = [number for moment, number in history[key] if moment < self.killed_at - 1]
                    later = [number for moment, number in history[key] if self.started_at and moment > self.started_at]
                    at_least = max(old[-1] if old else 0, later[-1] if later else 0)
                if found is not None and not at_least <= found <= tried[key]:
                    self.problems.append(f"{key} is {found}, and not {at_least} to {tried[key]}")
                elif found is None and at_least and not (self.is_disturbed(key) and self.killed_at):
                    self.problems.append(f"{key} is gone, which was {at_least}")
                tried[key] += 1
                if self.attempt(client.set, key, b"%d" % tried[key]):
                    history[key].append((time.monotonic(), tried[key]))


def kill_one_under_load(make_client, servers: list[Server], say) -> None:
    victim = 1
    client = make_client()
    counters = [f"counter{i}" for i in range(40)]
    for key in KEYS:
        assert client.set(key, value_of(key))
    for key in counters:
        assert client.set(key, b"0")
    where = places(servers, KEYS + counters)
    wait_until_written(servers)
    load = Load(make_client, where, victim)
    threads = [threading.Thread(target=load.read_all, args=(seed,)) for seed in (0, 1)]
    threads += [threading.Thread(target=load.count_up, args=(counters[part::2],)) for part in (0, 1)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1.2)  # the load alone, longer than what a kill may cost
        load.killed_at = time.monotonic()
        servers[victim].kill()
        time.sleep(0.5)  # the load on two of three
        servers[victim].start()
        load.started_at = time.monotonic()
        theirs = {key for key in KEYS if where[key] == victim}
        wait_for(lambda: load.problems or theirs <= load.found_again, 20)
        assert len(load.found_again - theirs) > 0
    finally:
        load.stopping = True
        for thread in threads:
            thread.join(20)
    say(f"{load.reads} reads, {load.missed} of them missed while one of three was down; all {len(theirs)} of its keys are back")
    assert load.problems == [] and load.missed > 0
    final = make_client()
    assert all(final.get(key) == value_of(key) for key in KEYS)
    assert places(servers, KEYS) == {key: where[key] for key in KEYS}


@pytest.mark.client("pymemcache HashClient, ketama", "text", package="pymemcache")
def test_one_is_killed_behind_the_ketama_of_pymemcache(three, say):
    kill_one_under_load(lambda: hashing(three), three, say)


@pytest.mark.client("pylibmc, ketama", "text", package="pylibmc")
def test_one_is_killed_behind_the_ketama_of_libmemcached(three, say):
    kill_one_under_load(lambda: consistent(three), three, say)


@pytest.mark.all_clients
@pytest.mark.client("nutcracker", "text", version=debian_version("nutcracker"))
def test_one_is_killed_behind_nutcracker(three, tmp_path, say):
    with Proxy(tmp_path, [f"{node(one)}:1" for one in three]) as proxy:
        kill_one_under_load(proxy.client, three, say)


@pytest.mark.all_clients
@pytest.mark.bounded(90)
def test_a_ring_that_gives_up_servers_would_serve_old_values(three, tmp_path):
    """Why docs/many-machines.md says not to: the server that comes back does not know what others were given meanwhile, and
    they keep it until its next failure."""
    with Proxy(tmp_path, [f"{node(one)}:1" for one in three], auto_eject=True) as proxy, closing(proxy.client()) as client:

        def attempt(call, *words):
            try:
                return call(*words)
            except Exception:  # until the proxy has given the server up
                return None

        assert client.set("key", b"first")
        victim = three[places(three, ["key"])["key"]]
        wait_until_written([victim])
        victim.kill()
        wait_for(lambda: attempt(client.set, "key", b"second"))
        victim.start()
        wait_for(lambda: attempt(client.get, "key") == b"first")
        assert client.set("key", b"third")
        victim.kill()
        wait_for(lambda: attempt(client.get, "key") == b"second")


# -- nodes come and go: the steps of docs/many-machines.md -------------------------------------------------------

PAGE = (harness.ROOT / "docs" / "many-machines.md").read_text()
RING = harness.ROOT / "examples" / "many-machines" / "ring.py"


def step(command: str, directory: Path, **instead: object) -> str:
    """Runs a command of the page, with what it names there replaced (`__` stands for a dot)."""
    assert re.search(rf"^ *{re.escape(command)}$", PAGE, re.MULTILINE), f"docs/many-machines.md does not say: {command}"
    for name, value in instead.items():
        command = command.replace(name.replace("__", "."), str(value))
    command = command.replace("thermocline ", f"{harness.BINARY} ").replace("ring.py", f"{sys.executable} {RING}")
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=directory, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def pick(command: str, directory: Path, file: Path, node: str | None = None) -> int:
    """A step that reads an export: how many items it picked. `node`: in the place of node1."""
    said = step(command, directory, items__db=file, node4__db=file, **({"of node1 ": f"of {node} "} if node else {}))
    return int(re.search(r"^(\d+) items$", said, re.MULTILINE)[1])


def send(command: str, directory: Path, address: str, server: Server) -> None:
    """A step that sends a stream to a server."""
    said = step(command, directory, **{f"{address}/11211": f"127.0.0.1/{server.port}"})
    assert said.endswith("MN\n")


def named(servers: list[Server]) -> list[str]:
    return [f"{node(one)}:1 node{number}" for number, one in enumerate(servers, 1)]


def found_in(servers: list[Server], directory: Path) -> dict[str, bytes]:
    with Proxy(directory, named(servers)) as proxy, closing(proxy.client()) as client:
        return {key: value for key, value in ((key, client.get(key)) for key in KEYS) if value is not None}


EXPECTED = {key: value_of(key) for key in KEYS}


@pytest.fixture
def filled(three, tmp_path):
    with Proxy(tmp_path, named(three)) as proxy, closing(proxy.client()) as client:
        for key, value in EXPECTED.items():
            assert client.set(key, value, expire=1000)
    wait_until_written(three)
    return three


@pytest.mark.all_clients
@pytest.mark.client("nutcracker", "text", version=debian_version("nutcracker"))
@pytest.mark.bounded(90)
@pytest.mark.parametrize("way", ["exact", "without a gap"])
def test_a_node_is_replaced_by_another_machine(filled, make_server, tmp_path, way):
    old, new = filled[2], make_server(name="node13", memory=4)
    where = places(filled, KEYS)
    if way == "exact":
        with old.connect() as connection:
            last = next(key for key in KEYS if where[key] == 2)
            connection.set(last, b"the last")
        old.terminate()
        shutil.copy(old.cold_path, new.cold_path)
    else:
        last = None
        step("thermocline backup items.db node3.db", tmp_path, items__db=old.cold_path, node3__db=new.cold_path)
        old.terminate()
    new.start()
    servers = [*filled[:2], new]
    assert found_in(servers, tmp_path) == EXPECTED | ({last: b"the last"} if last else {})
    assert places(servers, KEYS) == where


@pytest.mark.all_clients
@pytest.mark.client("nutcracker", "text", version=debian_version("nutcracker"))
@pytest.mark.bounded(120)
def test_a_node_is_added_and_removed_again(filled, make_server, tmp_path):
    three, four = filled, [*filled, make_server(name="node4", memory=4).start()]
    missed = EXPECTED.keys() - found_in(four, tmp_path).keys()
    assert 0.1 * len(KEYS) < len(missed) < 0.45 * len(KEYS)

    # What clients have written since the switch stays.
    newer = sorted(missed)[0]
    with four[3].connect() as connection:
        connection.set(newer, b"newer")
    moved = 0
    for server in three:
        moved += pick("thermocline export items.db | ring.py --of node4 node1 node2 node3 node4 > moved.stream", tmp_path, server.cold_path)
        send("(cat moved.stream >&3 & grep -m1 MN <&3) 3<>/dev/tcp/10.0.0.4/11211", tmp_path, "10.0.0.4", four[3])
    assert moved == len(missed) and found_in(four, tmp_path) == EXPECTED | {newer: b"newer"}
    with four[3].connect() as connection:
        connection.send(f"mg {sorted(missed)[1]} t\r\n".encode())
        assert 800 < int(connection.read_line().split()[1][1:]) <= 1000, "its TTL came along"

    surplus = 0
    for number, server in enumerate(three, 1):
        surplus += pick("thermocline export items.db | ring.py --not-of node1 node1 node2 node3 node4 > surplus.stream", tmp_path,
                        server.cold_path, f"node{number}")
        send("(cat surplus.stream >&3 & grep -m1 MN <&3) 3<>/dev/tcp/10.0.0.1/11211", tmp_path, "10.0.0.1", server)
    assert surplus == len(missed)
    assert len(places(four, KEYS)) == len(KEYS)  # each on one server only
    assert found_in(four, tmp_path) == EXPECTED | {newer: b"newer"}

    # It goes again.
    gone = sorted(missed)[2]
    with four[3].connect() as connection:
        assert connection.call(f"delete {gone}".encode() + b"\r\n") == b"DELETED"
    four[3].terminate()
    left = EXPECTED.keys() - missed
    assert found_in(three, tmp_path).keys() == left
    for number, server in enumerate(three, 1):
        pick("thermocline export node4.db | ring.py --of node1 node1 node2 node3 > moved.stream", tmp_path, four[3].cold_path, f"node{number}")
        send("(cat moved.stream >&3 & grep -m1 MN <&3) 3<>/dev/tcp/10.0.0.1/11211", tmp_path, "10.0.0.1", server)
    assert found_in(three, tmp_path) == {key: value for key, value in (EXPECTED | {newer: b"newer"}).items() if key != gone}


@pytest.mark.all_clients
def test_the_config_of_nutcracker_is_one():
    config = harness.ROOT / "examples" / "many-machines" / "nutcracker.yml"
    done = subprocess.run(["nutcracker", "--test-conf", "-c", config], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
