"""pymemcache from PyPI against the server: the client that Django uses."""

from contextlib import closing

import pytest
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.exceptions import MemcacheIllegalInputError, MemcacheServerError

pytestmark = pytest.mark.client("pymemcache", "text")

MIB = 1024 * 1024


@pytest.fixture
def running(make_server):
    return make_server("-I", "2m").start()


@pytest.fixture(params=["Client", "PooledClient", "HashClient"])
def client(request, running):
    address = ("127.0.0.1", running.port)
    made = {
        "Client": lambda: Client(address, default_noreply=False, timeout=20),
        "PooledClient": lambda: PooledClient(address, max_pool_size=4, default_noreply=False, timeout=20),
        "HashClient": lambda: HashClient([address], default_noreply=False, timeout=20),
    }[request.param]()
    yield made
    made.close()


def test_what_was_set_is_there(client):
    assert client.get("key") is None
    assert client.get("key", default=b"nothing") == b"nothing"
    assert client.set("key", b"value", flags=7)
    assert client.get("key") == b"value"
    assert client.set("key", b"")
    assert client.get("key") == b""


def test_many_keys_at_once(client):
    values = {f"key{i}": b"%d" % i * 10 for i in range(500)}
    assert client.set_many(values) == []
    assert client.get_many([*values, "absent"]) == values
    assert client.delete_many(list(values)[:250])
    assert client.get_many(list(values)) == dict(list(values.items())[250:])


def test_add_replace_append_prepend(client):
    assert not client.replace("key", b"x")
    assert client.add("key", b"middle")
    assert not client.add("key", b"x")
    assert client.append("key", b"-end")
    assert client.prepend("key", b"start-")
    assert client.get("key") == b"start-middle-end"
    assert client.replace("key", b"x")
    assert client.get("key") == b"x"


def test_cas_stores_only_over_what_was_read(client):
    client.set("key", b"one")
    value, cas = client.gets("key")
    assert value == b"one"
    assert client.cas("key", b"two", cas) is True
    assert client.cas("key", b"three", cas) is False
    assert client.cas("absent", b"x", cas) is None
    assert client.get("key") == b"two"
    assert client.gets_many(["key", "absent"])["key"][1] != cas


def test_counting(client):
    assert client.incr("n", 1) is None
    client.set("n", b"10")
    assert client.incr("n", 5) == 15
    assert client.decr("n", 20) == 0
    client.set("n", b"18446744073709551615")
    assert client.incr("n", 1) == 0


def test_touch_and_expiry(client):
    client.set("key", b"x", expire=1000)
    assert client.touch("key", 100)
    assert client.get("key") == b"x"
    assert client.touch("key", -1)
    assert client.get("key") is None
    assert not client.touch("key", 100)
    client.set("key", b"x", expire=-1)
    assert client.get("key") is None


def test_gat_and_delete(client):
    if hasattr(client, "gat"):
        client.set("key", b"x")
        assert client.gat("key", expire=100) == b"x"
    client.set("key", b"x")
    assert client.delete("key")
    assert not client.delete("key")


@pytest.mark.parametrize("size", [1, 1000, 64 * 1024, 1024 * 1024, 3 * MIB // 2])
def test_values_of_every_size_and_byte(client, size):
    value = (bytes(range(256)) * (size // 256 + 1))[:size]
    assert client.set("key", value)
    assert client.get("key") == value


def test_a_value_over_the_limit_is_refused_and_takes_the_old_one_along(client):
    client.set("key", b"old")
    with pytest.raises(MemcacheServerError):
        client.set("key", b"x" * (2 * MIB))
    assert client.get("key") is None


def test_noreply_is_carried_out_in_order(client):
    for i in range(1000):
        client.set(f"key{i % 10}", b"%d" % i, noreply=True)
    client.delete("key0", noreply=True)
    client.incr("key1", 1, noreply=True)
    expected = {f"key{i}": b"%d" % (990 + i + (i == 1)) for i in range(1, 10)}
    assert client.get_many([f"key{i}" for i in range(10)]) == expected


def test_flush_all(client):
    client.set_many({f"key{i}": b"x" for i in range(100)})
    client.flush_all()
    assert client.get_many([f"key{i}" for i in range(100)]) == {}


def test_keys_that_a_client_refuses_never_reach_the_server(client):
    for key in ("with space", "k" * 251, "line\r\nend"):
        with pytest.raises(MemcacheIllegalInputError):
            client.get(key)
    assert client.set("k" * 250, b"x")
    assert client.get("k" * 250) == b"x"


def test_version_and_statistics(running):
    with closing(Client(("127.0.0.1", running.port), timeout=20)) as client:
        assert client.version().split(b".")[0] == b"1"
        assert client.stats()[b"pid"] == running.pid
        assert client.stats(b"settings")


def test_objects_are_pickled_and_come_back(running):
    from pymemcache import serde

    with closing(Client(("127.0.0.1", running.port), serde=serde.pickle_serde, timeout=20)) as client:
        thing = {"list": [1, 2.5, None], "text": "\u00fc\u4e16", "bytes": b"\x00\xff"}
        client.set("object", thing, noreply=False)
        client.set("number", 17, noreply=False)
        assert client.get("object") == thing
        assert client.get("number") == 17


def test_two_servers_share_the_keys(make_server):
    servers = [make_server(name=name).start() for name in ("one", "two")]
    client = HashClient([("127.0.0.1", server.port) for server in servers], default_noreply=False, timeout=20)
    values = {f"key{i}": b"%d" % i for i in range(200)}
    assert client.set_many(values) == []
    assert client.get_many(list(values)) == values
    for server in servers:
        with server.connect() as connection:
            assert 20 < int(connection.statistics()["curr_items"]) < 180
    client.close()
