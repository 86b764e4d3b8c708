"""Client libraries do what their own documentation says: with all items in RAM, and with each of them in the file.

pymemcache has test_pymemcache.py, Django test_django_cache.py, other languages test_programs.py. Here: pylibmc
(libmemcached; text and binary), python-binary-memcached, libmc, aiomcache, emcache (text and its binding of the meta
commands), meta-memcache.
"""

from __future__ import annotations

import asyncio
import re
import time

import aiomcache
import bmemcached
import emcache
import libmc
import pylibmc
import pytest
from meta_memcache import (
    CacheClient,
    Key,
    ServerAddress,
    connection_pool_factory_builder,
)
from meta_memcache.configuration import LeasePolicy, RecachePolicy, StalePolicy
from meta_memcache.protocol import SetMode
from pymemcache.client.base import PooledClient
from pymemcache.client.hash import HashClient

import server as harness
from places import EVERY_BYTE, wait_for


# -- pylibmc -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("binary", [pytest.param(False, marks=pytest.mark.client("pylibmc", "text"), id="text"),
                                    pytest.param(True, marks=pytest.mark.client("pylibmc", "binary"), id="binary")])
def test_pylibmc(place, binary):
    client = pylibmc.Client([place.address], binary=binary, behaviors={"cas": True, "tcp_nodelay": True})
    assert client.set("text", "value") and client.set("number", 42) and client.set("bytes", EVERY_BYTE)
    assert client.set("object", {"list": [1, 2.5, None], "text": "\u00fc"}) and client.set("empty", b"")
    place.settle()
    assert [client.get(key) for key in ("text", "number", "bytes", "empty")] == ["value", 42, EVERY_BYTE, b""]
    assert client.get("object") == {"list": [1, 2.5, None], "text": "\u00fc"}
    assert client.get("absent") is None and client.get("absent", "default") == "default"
    assert "text" in client and "absent" not in client

    assert not client.add("text", "x") and client.add("added", "x")
    assert client.replace("added", "y")
    if binary:  # libmemcached gives the server's own words here
        with pytest.raises(pylibmc.NotFound):
            client.replace("absent", "y")
    else:
        assert not client.replace("absent", "y")
    place.settle()
    assert client.set("joined", "b") and client.append("joined", "c") and client.prepend("joined", "a")
    place.settle()
    assert client.get("joined") == "abc"
    place.settle()
    assert (client.incr("number"), client.incr("number", 7), client.decr("number", 10)) == (43, 50, 40)
    place.settle()
    assert client.get("number") == 40
    with pytest.raises(pylibmc.NotFound):
        client.incr("absent")

    many = {f"many{i}": f"value {i}" for i in range(300)}
    assert client.set_multi(many) == []
    place.settle()
    assert client.get_multi([*many, "absent"]) == many
    assert client.get_multi(["0", "1"], key_prefix="many") == {"0": "value 0", "1": "value 1"}
    client.incr_multi(["number"], delta=2)
    assert client.get("number") == 42
    assert client.delete_multi(list(many)[:100])
    assert len(client.get_multi(list(many))) == 200

    value, cas = client.gets("text")
    place.settle()
    assert value == "value" and client.cas("text", "new", cas) and not client.cas("text", "newer", cas)
    place.settle()
    assert client.get("text") == "new"
    assert client.delete("text") and not client.delete("text") and client.get("text") is None

    large = EVERY_BYTE * (place.large // 256)
    assert client.set("large", large)
    place.settle()
    assert client.get("large") == large
    assert client.set("compressed", large, min_compress_len=1000, compress_level=6)
    place.settle()
    assert client.get("compressed") == large

    assert client.set("short", "x", time=1) and client.set("touched", "x")
    assert client.touch("touched", 1) and not client.touch("absent", 1)
    place.settle()
    wait_for(lambda: client.get("short") is None and client.get("touched") is None)
    (name, figures), = client.get_stats()
    assert int(figures["cmd_get"] if "cmd_get" in figures else figures[b"cmd_get"]) > 10
    client.flush_all()
    assert client.get("number") is None
    client.disconnect_all()


# -- python-binary-memcached -------------------------------------------------------------------------------------

@pytest.mark.client("python-binary-memcached", "binary")
def test_python_binary_memcached(place):
    client = bmemcached.Client([place.address])
    assert client.set("text", "value") and client.set("number", 42) and client.set("bytes", EVERY_BYTE)
    assert client.set("object", {"a": [1, None]}) and client.set("empty", "")
    place.settle()
    assert [client.get(key) for key in ("text", "number", "bytes", "empty")] == ["value", 42, EVERY_BYTE, ""]
    assert client.get("object") == {"a": [1, None]} and client.get("absent") is None
    assert not client.add("text", "x") and client.add("added", "x")
    assert client.replace("added", "y") and not client.replace("absent", "y")
    place.settle()
    assert client.get("added") == "y"

    many = {f"many{i}": f"value {i}" for i in range(300)}
    assert client.set_multi(many) == []
    place.settle()
    assert client.get_multi([*many, "absent"]) == many
    assert client.delete_multi(list(many)[:100])
    assert len(client.get_multi(list(many))) == 200

    value, cas = client.gets("text")
    place.settle()
    assert value == "value" and client.cas("text", "new", cas) and not client.cas("text", "newer", cas)
    place.settle()
    assert client.get("text") == "new"
    assert client.delete("text") and client.get("text") is None

    assert client.incr("counter", 5, default=10) == 10
    place.settle()
    assert (client.incr("counter", 5), client.decr("counter", 3)) == (15, 12)
    large = EVERY_BYTE * (place.large // 256)
    assert client.set("large", large, compress_level=0)
    place.settle()
    assert client.get("large") == large
    key = "k" * 250
    assert client.set(key, "long")
    place.settle()
    assert client.get(key) == "long"
    assert client.set("short", "x", time=1)
    place.settle()
    wait_for(lambda: client.get("short") is None)
    figures, = client.stats().values()
    assert int(figures["cmd_set"]) > 10
    assert client.flush_all() and client.get("number") is None
    client.disconnect_all()


# -- libmc -------------------------------------------------------------------------------------------------------

@pytest.mark.client("libmc", "text")
def test_libmc(place):
    client = libmc.Client([place.address], comp_threshold=0)
    client.config(libmc.MC_POLL_TIMEOUT, 20_000)
    assert client.set("text", "value") and client.set("number", 42) and client.set("bytes", EVERY_BYTE)
    assert client.set("object", {"list": [1, 2.5, None], "text": "\u00fc"}) and client.set("empty", b"")
    place.settle()
    assert [client.get(key) for key in ("text", "number", "bytes", "empty")] == ["value", 42, EVERY_BYTE, b""]
    assert client.get("object") == {"list": [1, 2.5, None], "text": "\u00fc"} and client.get("absent") is None
    assert not client.add("text", "x") and client.add("added", "x")
    assert client.replace("added", "y") and not client.replace("absent", "y")
    assert client.set("joined", b"b")
    place.settle()
    assert client.append("joined", b"c") and client.prepend("joined", b"a") and not client.append("absent", b"x")
    place.settle()
    assert client.get("joined") == b"abc"
    assert (client.incr("number"), client.incr("number", 7), client.decr("number", 10)) == (43, 50, 40)
    place.settle()
    assert client.get("number") == 40 and client.incr("absent") is None

    many = {f"many{i}": f"value {i}" for i in range(300)}
    assert client.set_multi(many)
    place.settle()
    assert client.get_multi([*many, "absent"]) == many
    assert client.get_list(["many1", "absent"]) == ["value 1", None]
    assert client.delete_multi(list(many)[:100])
    assert len(client.get_multi(list(many))) == 200

    value, cas = client.gets("text")
    place.settle()
    assert value == "value" and client.cas("text", "new", 0, cas) and not client.cas("text", "newer", 0, cas)
    place.settle()
    assert client.get("text") == "new"
    assert client.delete("text") and client.get("text") is None
    large, key = EVERY_BYTE * (place.large // 256), "k" * 250
    assert client.set("large", large) and client.set(key, "long")
    place.settle()
    assert client.get("large") == large and client.get(key) == "long"
    squeezing = libmc.Client([place.address], comp_threshold=1000)
    assert squeezing.set("compressed", large)
    place.settle()
    assert squeezing.get("compressed") == large

    assert client.set("short", "x", 1) and client.set("touched", "x")
    place.settle()
    assert client.touch("touched", 1) and not client.touch("absent", 1)
    wait_for(lambda: client.get_multi(["short", "touched"]) == {})
    assert int(client.stats()[place.address]["cmd_get"]) > 10
    client.quit()


# -- aiomcache ---------------------------------------------------------------------------------------------------

@pytest.mark.client("aiomcache", "text")
def test_aiomcache(place):
    async def use():
        client = aiomcache.Client("127.0.0.1", place.port, pool_size=4)
        assert await client.set(b"text", b"value") and await client.set(b"bytes", EVERY_BYTE)
        place.settle()
        assert await client.get(b"text") == b"value" and await client.get(b"bytes") == EVERY_BYTE
        assert await client.get(b"absent") is None and await client.get(b"absent", b"x") == b"x"
        assert not await client.add(b"text", b"x") and await client.replace(b"text", b"b")
        place.settle()
        assert await client.append(b"text", b"c") and await client.prepend(b"text", b"a")
        place.settle()
        assert await client.multi_get(b"text", b"absent", b"bytes") == (b"abc", None, EVERY_BYTE)
        value, cas = await client.gets(b"text")
        place.settle()
        assert value == b"abc" and await client.cas(b"text", b"new", cas) and not await client.cas(b"text", b"x", cas)
        assert await client.set(b"n", b"5")
        place.settle()
        assert (await client.incr(b"n", 4), await client.decr(b"n")) == (9, 8)
        with pytest.raises(aiomcache.exceptions.ClientException):
            await client.incr(b"absent")
        # Twenty at a time on four connections, each beyond a cold read of the others.
        await asyncio.gather(*(client.set(b"many%d" % i, b"%d" % i * 50) for i in range(200)))
        place.settle()
        found = await asyncio.gather(*(client.get(b"many%d" % i) for i in range(200)))
        assert found == [b"%d" % i * 50 for i in range(200)]
        assert await client.touch(b"text", 1) and not await client.touch(b"absent", 1)
        assert await client.set(b"short", b"x", exptime=1)
        place.settle()
        deadline = time.monotonic() + 8
        while await client.multi_get(b"text", b"short") != (None, None):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert await client.delete(b"n") and not await client.delete(b"n")
        assert (await client.version()).startswith(b"1.") and int((await client.stats())[b"cmd_get"]) > 200
        await client.flush_all()
        assert await client.get(b"bytes") is None
        await client.close()

    asyncio.run(use())


# -- emcache -----------------------------------------------------------------------------------------------------

@pytest.mark.client("emcache", "text")
def test_emcache(place):
    async def use():
        host = emcache.MemcachedHostAddress("127.0.0.1", place.port)
        client = await emcache.create_client([host], timeout=20)
        await client.set(b"text", b"value", flags=7)
        await client.set(b"bytes", EVERY_BYTE)
        place.settle()
        item = await client.get(b"text", return_flags=True)
        assert (item.value, item.flags) == (b"value", 7)
        assert (await client.get(b"bytes")).value == EVERY_BYTE and await client.get(b"absent") is None
        with pytest.raises(emcache.NotStoredStorageCommandError):
            await client.add(b"text", b"x")
        with pytest.raises(emcache.NotStoredStorageCommandError):
            await client.replace(b"absent", b"x")
        place.settle()
        await client.append(b"text", b"-end")
        await client.prepend(b"text", b"start-")
        place.settle()
        item = await client.gets(b"text")
        assert item.value == b"start-value-end"
        place.settle()
        await client.cas(b"text", b"new", item.cas)
        with pytest.raises(emcache.StorageCommandError):
            await client.cas(b"text", b"newer", item.cas)
        for i in range(100):
            await client.set(b"many%d" % i, b"value %d" % i, noreply=i % 2 == 0)
        place.settle()
        keys = [b"many%d" % i for i in range(100)]
        found = await client.get_many([*keys, b"absent"])
        assert {key: found[key].value for key in found} == {key: b"value %d" % i for i, key in enumerate(keys)}
        found = await client.gets_many(keys[:10])
        assert len({item.cas for item in found.values()}) == 10
        await client.set(b"n", b"5")
        place.settle()
        assert (await client.increment(b"n", 4), await client.decrement(b"n", 1)) == (9, 8)
        assert (await client.gat(100, b"text")).value == b"new" and (await client.gats(100, b"text")).cas
        place.settle()
        assert (await client.gat_many(1, [b"n", b"absent"]))[b"n"].value == b"8"
        await client.touch(b"text", 1)
        with pytest.raises(emcache.NotFoundCommandError):
            await client.touch(b"absent", 1)
        place.settle()
        deadline = time.monotonic() + 8
        while await client.get_many([b"text", b"n"]):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        large = EVERY_BYTE * (place.large // 256)
        await client.set(b"large", large)
        place.settle()
        assert (await client.get(b"large")).value == large
        await client.delete(b"large")
        with pytest.raises(emcache.NotFoundCommandError):
            await client.delete(b"large")
        assert (await client.version(host)).startswith("1.") and int((await client.stats(host))["cmd_set"]) > 100
        await client.verbosity(host, 1)
        await client.flush_all(host)
        assert await client.get(b"bytes") is None
        await client.close()

    asyncio.run(use())


# -- meta-memcache -----------------------------------------------------------------------------------------------

@pytest.mark.client("meta-memcache", "meta")
def test_meta_memcache(place):
    client = CacheClient.cache_client_from_servers(
        servers=[ServerAddress("127.0.0.1", place.port)],
        connection_pool_factory_fn=connection_pool_factory_builder(connection_timeout=20, recv_timeout=20))
    # Text, numbers, bytes, objects; a key of other letters and one that is too long go in base64.
    values = {"text": "value", "number": 42, "bytes": EVERY_BYTE, "object": {"a": [1, None]}, "\u00fc\u4e16 key": "u",
              "long" * 100: "l", "large": EVERY_BYTE * (place.large // 256)}
    for key, value in values.items():
        assert client.set(Key(key), value, ttl=1000), key
    place.settle()
    for key, value in values.items():
        assert client.get(Key(key)) == value, key
    assert client.multi_get([Key(key) for key in [*values, "absent"]]) == {
        **{Key(key): value for key, value in values.items()}, Key("absent"): None}

    assert not client.refill("text", "x", ttl=1000) and client.refill("filled", "x", ttl=1000)
    assert not client.set("absent", "x", ttl=1000, set_mode=SetMode.REPLACE)
    assert client.set("joined", "b", ttl=1000)
    place.settle()
    assert client.set("joined", b"c", ttl=1000, set_mode=SetMode.APPEND)
    assert client.set("joined", b"a", ttl=1000, set_mode=SetMode.PREPEND)
    place.settle()
    assert client.get("joined") in ("abc", b"abc")

    value, cas = client.get_cas("text")
    place.settle()
    assert value == "value" and client.set("text", "new", ttl=1000, cas_token=cas)
    assert not client.set("text", "newer", ttl=1000, cas_token=cas)
    assert not client.delete("text", cas_token=cas)

    assert client.delta_initialize("counter", delta=1, initial_value=10, initial_ttl=1000)
    place.settle()
    assert client.delta_and_get("counter", delta=5) == 15 and client.delta_and_get("counter", delta=-7) == 8
    assert client.delta_and_get("absent", delta=1) is None
    assert client.delta_initialize_and_get("second", delta=1, initial_value=3, initial_ttl=1000) == 3

    # A lease: the first that misses may fill, the others wait; here the others are this client once more.
    lease = LeasePolicy(ttl=30, miss_retries=1, miss_retry_wait=0.01)
    assert client.get_or_lease("leased", lease) is None
    place.settle()
    assert client.get_or_lease("leased", lease) is None
    assert client.set("leased", "filled", ttl=1000)
    place.settle()
    assert client.get_or_lease("leased", lease) == "filled"

    # Stale: one reader is told to fill, all others get what there is.
    assert client.set("stale", "old", ttl=1000)
    assert client.delete("stale", stale_policy=StalePolicy(mark_stale_on_deletion_ttl=30))
    place.settle()
    recache = RecachePolicy(ttl=30)
    assert client.get("stale", recache_policy=recache) is None
    place.settle()
    assert client.get("stale", recache_policy=recache) == "old"
    assert client.set("stale", "new", ttl=1000)
    place.settle()
    assert client.get("stale", recache_policy=recache) == "new"
    assert client.set("expiring", "x", ttl=10)
    place.settle()
    assert client.get("expiring", recache_policy=recache) is None and client.get("expiring", recache_policy=recache) == "x"

    assert client.touch("text", ttl=1) and not client.touch("absent", ttl=1)
    assert client.get("number", touch_ttl=1) == 42
    place.settle()
    wait_for(lambda: client.get("text") is None and client.get("number") is None)
    assert client.delete("bytes") and not client.delete("bytes") and client.invalidate("bytes")
    for i in range(50):
        client.set(f"quiet{i}", i, ttl=1000, no_reply=True)
    place.settle()
    assert [client.get(f"quiet{i}") for i in range(50)] == list(range(50))


def test_reads_of_the_cold_place_come_from_the_file(started):
    """Or all that was shown above would have been shown in RAM."""
    if not started.mover.is_cold or harness.is_memcached(started.server.binary):
        pytest.skip("all in RAM")
    with started.server.connect() as connection:
        figures = connection.statistics("tiers") or connection.statistics()
    reads = [int(value) for name, value in figures.items() if re.search(r"cold.*read|cold.*hit|read.*cold", name)]
    assert reads and max(reads) > 500, figures


# -- a restart ---------------------------------------------------------------------------------------------------

def steady_clients(place) -> dict[str, tuple]:
    """For each client that keeps a connection: how it stores and how it reads."""
    pymemcache_client = PooledClient(("127.0.0.1", place.port), default_noreply=False, timeout=20)
    hashing = HashClient([("127.0.0.1", place.port)], default_noreply=False, timeout=20, retry_timeout=0, dead_timeout=0)
    text, binary = (pylibmc.Client([place.address], binary=binary, behaviors={"retry_timeout": 1})
                    for binary in (False, True))
    bmemcached_client = bmemcached.Client([place.address])
    libmc_client = libmc.Client([place.address])
    libmc_client.config(libmc.MC_RETRY_TIMEOUT, 0)
    meta = CacheClient.cache_client_from_servers(
        servers=[ServerAddress("127.0.0.1", place.port)],
        connection_pool_factory_fn=connection_pool_factory_builder(connection_timeout=20, recv_timeout=20, mark_down_period_s=0))
    return {
        "pymemcache": (pymemcache_client.set, pymemcache_client.get),
        "pymemcache.HashClient": (hashing.set, hashing.get),
        "pylibmc": (text.set, text.get),
        "pylibmc-binary": (binary.set, binary.get),
        "bmemcached": (bmemcached_client.set, bmemcached_client.get),
        "libmc": (libmc_client.set, libmc_client.get),
        "meta-memcache": (lambda key, value: meta.set(key, value, ttl=1000), meta.get),
    }


def test_all_clients_find_their_values_after_a_restart(place):
    clients = steady_clients(place)
    for name, (store, read) in clients.items():
        assert all(store(f"{name}{i}", b"%d" % i) for i in range(20)), name
        assert read(f"{name}1") == b"1", name
    place.restart()
    for name, (_, read) in clients.items():
        for i in range(20):
            expected = b"%d" % i
            deadline = time.monotonic() + 8
            # A client may notice only now that its connection is gone, and then says so or has a miss: once or twice.
            while (found := attempt(read, f"{name}{i}")) != expected:
                assert found is None, f"{name} read {found!r}"
                assert time.monotonic() < deadline, f"{name} finds nothing after the restart"
                time.sleep(0.02)
    for name, (store, read) in clients.items():
        assert store(f"{name}1", b"after"), name
    place.settle()
    assert all(read(f"{name}1") == b"after" for name, (_, read) in clients.items())


def attempt(read, key: str):
    try:
        return read(key)
    except Exception:  # each client has its own for a connection that was lost
        return None


def test_asynchronous_clients_find_their_values_after_a_restart(place):
    async def use():
        host = emcache.MemcachedHostAddress("127.0.0.1", place.port)
        one, other = aiomcache.Client("127.0.0.1", place.port), await emcache.create_client([host], timeout=20)
        for i in range(20):
            await one.set(b"aiomcache%d" % i, b"%d" % i)
            await other.set(b"emcache%d" % i, b"%d" % i)
        await asyncio.to_thread(place.restart)
        for i in range(20):
            for client, key in ((one, b"aiomcache%d" % i), (other, b"emcache%d" % i)):
                deadline = time.monotonic() + 8
                while True:
                    try:
                        found = await client.get(key)
                    except Exception:
                        found = None
                    found = found if found is None or isinstance(found, bytes) else found.value
                    if found == b"%d" % i:
                        break
                    assert found is None and time.monotonic() < deadline, (key, found)
                    await asyncio.sleep(0.02)
        await one.close()
        await other.close()

    asyncio.run(use())


# -- TLS ---------------------------------------------------------------------------------------------------------

@pytest.mark.cold_tier
@pytest.mark.parametrize("name", [
    pytest.param("pymemcache", marks=pytest.mark.client("pymemcache", "text, TLS")),
    pytest.param("bmemcached", marks=pytest.mark.client("python-binary-memcached", "binary, TLS"))])
def test_cold_items_over_tls(cold_and_secure, name):
    place, authority = cold_and_secure
    context = authority.trust()
    if name == "pymemcache":
        client = PooledClient(("127.0.0.1", place.port), default_noreply=False, timeout=20, tls_context=context)
        store_many, read_many = client.set_many, client.get_many
    else:
        context.check_hostname = False  # it does not hand the name on
        client = bmemcached.Client([place.address], tls_context=context, socket_timeout=20)
        store_many, read_many = client.set_multi, client.get_multi
    many = {f"many{i}": b"value %d" % i for i in range(300)}
    assert store_many(many) == [] and client.set("large", EVERY_BYTE * 250)
    place.settle()
    assert read_many([*many, "absent"]) == many and client.get("large") == EVERY_BYTE * 250
    value, cas = client.gets("many1")
    place.settle()
    assert value == b"value 1" and client.cas("many1", b"new", cas) and not client.cas("many1", b"newer", cas)
    assert client.delete("many2") and client.get("many2") is None
    place.restart()
    wait_for(lambda: attempt(client.get, "many1") == b"new")
    assert len(read_many(list(many))) == 299 and client.get("large") == EVERY_BYTE * 250
    with place.server.connect() as connection:
        assert int(connection.statistics("tiers")["cold_hits"]) >= 299
