"""`stats` in all its topics: memcached's names, and its figures wherever both servers must count alike."""

from __future__ import annotations

import pytest

import server as harness
from arrangements import put

pytestmark = pytest.mark.skipif(harness.is_memcached(harness.BINARY), reason="it is the names of memcached that are asked for")

#: What memcached 1.6.45 answers to `stats`, in its order, without its own second tier and TLS.
GENERAL = """
pid uptime time version libevent pointer_size rusage_user rusage_system max_connections curr_connections
total_connections rejected_connections connection_structures response_obj_oom response_obj_count response_obj_bytes
read_buf_count read_buf_bytes read_buf_bytes_free read_buf_oom reserved_fds cmd_get cmd_set cmd_flush cmd_touch cmd_meta
get_hits get_misses get_expired get_flushed delete_misses delete_hits incr_misses incr_hits decr_misses decr_hits
cas_misses cas_hits cas_badval touch_hits touch_misses store_too_large store_no_memory auth_cmds auth_errors bytes_read
bytes_written limit_maxbytes accepting_conns listen_disabled_num time_in_listen_disabled_us threads conn_yields
hash_power_level hash_bytes hash_is_expanding slab_reassign_rescues slab_reassign_chunk_rescues
slab_reassign_inline_reclaim slab_reassign_busy_items slab_reassign_busy_deletes slab_reassign_busy_nomem
slab_reassign_last_busy_status slab_reassign_running slabs_moved lru_crawler_running lru_crawler_starts
lru_maintainer_juggles malloc_fails log_worker_dropped log_worker_written log_watcher_skipped log_watcher_sent
log_watchers unexpected_napi_ids round_robin_fallback bytes curr_items total_items slab_global_page_pool
expired_unfetched evicted_unfetched evicted_active evictions reclaimed crawler_reclaimed crawler_items_checked
lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru direct_reclaims lru_bumps_dropped
""".split()

#: What it adds with a second tier.
EXTSTORE = """
get_extstore get_aborted_extstore get_oom_extstore recache_from_extstore miss_from_extstore badcrc_from_extstore
extstore_memory_pressure extstore_compact_lost extstore_compact_rescues extstore_compact_resc_cold
extstore_compact_resc_old extstore_compact_skipped extstore_page_allocs extstore_page_evictions extstore_page_reclaims
extstore_pages_free extstore_pages_used extstore_objects_evicted extstore_objects_read extstore_objects_written
extstore_objects_used extstore_bytes_evicted extstore_bytes_written extstore_bytes_read extstore_bytes_used
extstore_bytes_fragmented extstore_limit_maxbytes extstore_io_queue
""".split()

SETTINGS = """
maxbytes maxconns tcpport udpport inter verbosity oldest evictions domain_socket umask shutdown_command growth_factor
chunk_size num_threads num_threads_per_udp stat_key_prefix detail_enabled reqs_per_event cas_enabled tcp_backlog
binding_protocol auth_enabled_sasl auth_enabled_ascii item_size_max maxconns_fast hashpower_init slab_reassign
slab_automove slab_automove_ratio slab_automove_window slab_chunk_max lru_crawler lru_crawler_sleep lru_crawler_tocrawl
tail_repair_time flush_enabled dump_enabled hash_algorithm lru_maintainer_thread lru_segmented hot_lru_pct warm_lru_pct
hot_max_factor warm_max_factor temp_lru temporary_ttl idle_timeout watcher_logbuf_size worker_logbuf_size
read_buf_mem_limit track_sizes inline_ascii_response ext_item_size ext_item_age ext_low_ttl ext_recache_rate
ext_wbuf_size ext_compact_under ext_drop_under ext_max_sleep ext_max_frag slab_automove_freeratio ext_drop_unread
num_napi_ids memory_file client_flags_size
""".split()

ITEMS = """
number number_hot number_warm number_cold age_hot age_warm age mem_requested evicted evicted_nonzero evicted_time
outofmemory tailrepairs reclaimed expired_unfetched evicted_unfetched evicted_active crawler_reclaimed
crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru direct_reclaims hits_to_hot
hits_to_warm hits_to_cold hits_to_temp
""".split()

SLABS = """
chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks free_chunks_end get_hits cmd_set delete_hits
incr_hits decr_hits cas_hits cas_badval touch_hits
""".split()

#: What prometheus/memcached_exporter reads of `stats`, `stats settings`, and of each class; without the proxy's.
EXPORTED = """
accepting_conns bytes bytes_read bytes_written cas_badval cas_hits cas_misses cmd_flush cmd_get cmd_set conn_yields
crawler_items_checked crawler_reclaimed curr_connections curr_items decr_hits decr_misses delete_hits delete_misses
direct_reclaims evictions get_hits get_misses incr_hits incr_misses limit_maxbytes listen_disabled_num
lru_crawler_starts max_connections moves_to_cold moves_to_warm moves_within_lru reclaimed rejected_connections
round_robin_fallback rusage_system rusage_user store_no_memory store_too_large time total_connections total_items
touch_hits touch_misses unexpected_napi_ids uptime version
""".split()

#: What the harness switches off where replies are compared, and what statistics are about.
AS_USUAL = "slab_chunk_max=524288,maxconns_fast,slab_reassign,slab_automove=1"

#: Ours alone.
OWN = {"thermocline_version"}
#: Of older memcacheds, for the dashboards of their time.
OLDER = {"slab_reassign_evictions_nomem"}
OWN_SETTINGS = {"cold_tier"}


@pytest.fixture
def both(make_server):
    """Ours in RAM only, and a memcached, with the same options."""

    def make(*options, **settings):
        ours = make_server(*options, cold=False, name="ours", **settings).start()
        peer = make_server("-o", AS_USUAL, *options, binary=harness.PEER, name="peer", **settings).start()
        return ours, peer

    return make


def say(server, *commands: bytes) -> list[bytes]:
    """Commands one after the other, each with a reply of one line."""
    with server.connect() as connection:
        return [connection.call(command) for command in commands]


def lines(server, command: bytes, end: bytes = b"END\r\n") -> list[bytes]:
    """The lines of a reply, with `end` as the last one."""
    with server.connect() as connection:
        connection.send(command)
        got = [connection.read_line()]
        while got[-1] != end and not got[-1].startswith((b"ERROR", b"CLIENT_ERROR", b"RESET")):
            got.append(connection.read_line())
        return got


def figures(server, topic: str = "") -> dict[str, str]:
    with server.connect() as connection:
        return connection.statistics(topic)


def test_every_general_name_is_there_in_memcacheds_order(both):
    ours, peer = both()
    names = list(figures(ours))
    assert [name for name in names if name in GENERAL] == GENERAL
    assert set(figures(peer)) <= set(names)
    assert set(names) - set(GENERAL) == OWN | OLDER
    assert not set(EXPORTED) - set(names)


def test_every_setting_has_memcacheds_name_and_default(both):
    ours, peer = both()
    said, expected = figures(ours, "settings"), figures(peer, "settings")
    assert [name for name in said if name in SETTINGS] == SETTINGS
    assert set(expected) <= set(said)
    assert set(said) - set(SETTINGS) - set(expected) == OWN_SETTINGS
    # Other in 1.6.18 than in 1.6.45, or another program's.
    differ = {"tcpport", "slab_automove_window", "num_napi_ids", "hash_algorithm", "lru_maintainer_thread",
              "lru_segmented", "lru_crawler", "slab_reassign", "slab_automove", "drop_privileges",
              "num_threads_per_udp"}
    assert {n: v for n, v in said.items() if n in expected and n not in differ} == {
        n: v for n, v in expected.items() if n not in differ}
    with ours.connect() as connection:
        assert connection.statistics("set") == said  # an abbreviation


@pytest.mark.cold_tier
def test_the_cold_tier_has_the_names_of_memcacheds_second_tier(make_server):
    server = make_server("--promote-after", "0", "--demote-after", "1", "--durability-interval", "50ms").start()
    assert set(EXTSTORE) <= set(figures(server))
    with server.connect() as connection:
        for i in range(100):
            connection.set(f"k{i}", b"x" * 500)
        wait_for(lambda: connection.statistics("tiers")["hot_items"] == "0")
        for i in range(100):
            assert connection.get(f"k{i}") == b"x" * 500
        after = connection.statistics()
        assert after["get_extstore"] == "100" and after["extstore_objects_read"] == "100"
        assert int(after["extstore_bytes_read"]) >= 100 * 500
        assert after["extstore_objects_used"] == "100" and after["curr_items"] == "100"
        assert int(after["extstore_objects_written"]) >= 100
        assert after["extstore_limit_maxbytes"] == str(1 << 30)
        assert after["recache_from_extstore"] == "0" and after["extstore_io_queue"] == "0"
        assert set(connection.statistics("extstore")) == {"0:version", "0:bytes", "0:bucket", "0:free_bucket"}


#: Commands after which both servers must have counted the same.
COMMANDS = [
    put("a", "1"), b"get a\r\n", b"get absent\r\n", b"gets a absent\r\n", b"gat 10 a\r\n", b"gat 10 absent\r\n",
    b"touch a 10\r\n", b"touch absent 10\r\n", b"incr a 1\r\n", b"incr absent 1\r\n", b"decr a 1\r\n",
    b"decr absent 1\r\n", put("a", "1", "cas", more=" 99999"), put("absent", "1", "cas", more=" 1"),
    b"delete absent\r\n", put("d", "1"), b"delete d\r\n", put("a", "2", "append"), put("absent", "1", "append"),
    put("a", "2", "prepend"), put("a", "1", "add"), put("absent", "1", "replace"), put("a", "3", "replace"),
    b"incr a 1000\r\n", put("big", b"x" * (2 << 20)), put("middle", b"x" * 5000, flags=7), b"get middle\r\n",
    put("large", b"x" * 700_000), b"gets large\r\n", b"mg a v\r\n", b"mg absent v\r\n", b"mg a T30\r\n",
    b"ms m 1\r\n1\r\n", b"ms m 1 MA\r\n1\r\n", b"md m\r\n", b"md m\r\n", b"ma a\r\n", b"ma absent\r\n",
    b"ma new N0\r\n", b"ma a MD\r\n", b"me a\r\n", b"me absent\r\n", b"flush_all 0\r\n", b"verbosity 1\r\n",
]
COUNTED = """cmd_get cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses delete_misses delete_hits incr_misses
incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits touch_misses store_too_large store_no_memory
auth_cmds auth_errors total_items bytes curr_items evictions""".split()


def test_both_count_the_same_after_each_command(both):
    ours, peer = both()
    before = [figures(server) for server in (ours, peer)]
    for command in COMMANDS:
        grown = []
        for i, server in enumerate((ours, peer)):
            with server.connect() as connection:
                connection.send(command + b"mn\r\n")
                while connection.read_line() != b"MN\r\n":
                    pass
                now = connection.statistics()
            if command.startswith(b"flush_all"):
                # What is flushed goes from the figures when it is met, by whom is not said.
                skip = {"bytes", "curr_items"}
            else:
                skip = set()
            grown.append({n: int(now[n]) - int(before[i][n]) for n in COUNTED if n not in skip})
            before[i] = now
        assert grown[0] == grown[1], command[:60]


def test_items_and_slabs_are_those_of_memcached(both):
    ours, peer = both()
    sizes = [1, 30, 60, 100, 250, 1000, 5000, 20_000, 100_000, 400_000, 800_000]
    for server in (ours, peer):
        with server.connect() as connection:
            for size in sizes:
                for i in range(3):
                    connection.set(f"k{size}-{i}", b"x" * size, flags=i)
                    connection.get(f"k{size}-{i}")
                connection.call(b"touch k%d-0 100\r\n" % size)
                connection.call(b"delete k%d-1\r\n" % size)
            connection.set("n", b"5")
            connection.call(b"incr n 1\r\n")
            connection.call(b"decr n 1\r\n")
    said, expected = figures(ours, "items"), figures(peer, "items")
    classes = sorted({int(name.split(":")[1]) for name in expected})
    assert classes == sorted({int(name.split(":")[1]) for name in said})
    alike = {"number", "mem_requested", "evicted", "evicted_nonzero", "outofmemory", "tailrepairs"}
    for number in classes:
        assert [n.split(":")[2] for n in said if n.startswith(f"items:{number}:")] == ITEMS
        for name in alike:
            assert said[f"items:{number}:{name}"] == expected[f"items:{number}:{name}"], (number, name)
    said, expected = figures(ours, "slabs"), figures(peer, "slabs")
    alike = {"chunk_size", "chunks_per_page", "get_hits", "cmd_set", "delete_hits", "incr_hits", "decr_hits",
             "cas_hits", "cas_badval", "touch_hits"}
    for number in classes:
        assert [n.split(":")[1] for n in said if n.startswith(f"{number}:")] == SLABS
        for name in alike:
            assert said[f"{number}:{name}"] == expected[f"{number}:{name}"], (number, name)
    assert said["active_slabs"] == str(len(classes)) and int(said["total_malloced"]) > 0


def test_sizes_are_counted_only_if_that_was_asked_for(both):
    ours, peer = both()
    assert lines(ours, b"stats sizes\r\n") == lines(peer, b"stats sizes\r\n") == [
        b"STAT sizes_status disabled\r\n", b"END\r\n"]
    # Switched on while it served until 1.6.31; the newer one has no such command.
    assert lines(ours, b"stats sizes_enable\r\n") == [b"ERROR\r\n"]


def test_the_histogram_of_sizes_is_that_of_memcached(both):
    ours, peer = both("-o", "track_sizes")
    for server in (ours, peer):
        with server.connect() as connection:
            for size in [1, 10, 40, 100, 200, 3000, 50_000, 300_000]:
                connection.set(f"key-{size}", b"x" * size)
                connection.set(f"other-{size}", b"x" * size, flags=1)
            connection.call(b"delete key-100\r\n")
            connection.set("key-200", b"y" * 201)
            connection.set("key-200", b"y" * 900)
    assert lines(ours, b"stats sizes\r\n") == lines(peer, b"stats sizes\r\n")


def test_detail_counts_commands_by_the_prefix_of_their_key(both):
    ours, peer = both()
    commands = [put("user:1", "x"), b"get user:1 user:2\r\n", b"gets plain\r\n", put("plain", "x"), b"gat 10 user:1\r\n",
                b"delete user:1\r\n", b"delete user:1\r\n", put(":x", "1"), b"touch user:1 1\r\n", b"incr user:1 1\r\n",
                put("page:a:b", "1"), put("page:a:b", "1", "add"), b"mg page:a v\r\n"]
    for server in (ours, peer):
        assert lines(server, b"stats detail dump\r\n") == [b"END\r\n"]
        with server.connect() as connection:
            connection.send(b"get user:1\r\nmn\r\n")  # not yet
            while connection.read_line() != b"MN\r\n":
                pass
            assert connection.call(b"stats detail on\r\n") == b"OK"
            connection.send(b"".join(commands) + b"mn\r\n")
            while connection.read_line() != b"MN\r\n":
                pass
    said = lines(ours, b"stats detail dump\r\n")
    assert sorted(said) == sorted(lines(peer, b"stats detail dump\r\n")) and len(said) == 4
    assert figures(ours, "settings")["detail_enabled"] == "yes"
    for word in (b"", b"x", b"dumpling", b"off"):
        command = b"stats detail %s\r\n" % word
        assert say(ours, command) == say(peer, command), word
    assert say(ours, b"stats detail o\r\n") == [b"OK"]  # 1.6.45 compares as far as the word goes
    assert say(ours, b"stats reset\r\n") == [b"RESET"]
    assert lines(ours, b"stats detail dump\r\n") == [b"END\r\n"]


def test_another_delimiter_turns_detail_on(both):
    ours, peer = both("-D", "/")
    for server in (ours, peer):
        with server.connect() as connection:
            connection.set("a/b", b"1")
            connection.set("a:b", b"1")
    assert lines(ours, b"stats detail dump\r\n") == lines(peer, b"stats detail dump\r\n")
    assert figures(ours, "settings")["stat_key_prefix"] == "/"


def test_nothing_is_listed_under_X(both):
    ours, peer = both("-X")
    for command in (b"stats cachedump 1 1", b"stats cachedump"):
        assert say(ours, command + b"\r\n") == say(peer, command + b"\r\n"), command
    # As 1.6.45 says; 1.6.18 had still to learn it.
    for command in (b"stats detail on\r\n", b"stats detail dump\r\n", b"stats detail\r\n"):
        assert say(ours, command) == [b"CLIENT_ERROR stats detail not allowed"], command
    assert figures(ours, "settings")["dump_enabled"] == "no"


def test_cachedump_lists_a_class(make_server, both):
    ours, peer = both()
    with ours.connect() as connection:
        for i in range(20):
            connection.set(f"k{i}", b"xyz", expiry=1000)
        connection.set("long", b"x" * 5000)
    listed = lines(ours, b"stats cachedump 1 0\r\n")
    assert len(listed) == 21 and listed[-1] == b"END\r\n"
    for line in listed[:-1]:
        words = line.split()
        assert words[0] == b"ITEM" and words[1].startswith(b"k") and words[2:4] == [b"[3", b"b;"], line
    assert len(lines(ours, b"stats cachedump 1 5\r\n")) == 6
    assert lines(ours, b"stats cachedump 19 0\r\n")[0].startswith(b"ITEM long [5000 b; 0 s]")
    for rest in (b"1", b"x 1", b"1 x", b"64 1", b"200 0", b"-1 1", b"0 0"):
        command = b"stats cachedump %s\r\n" % rest
        assert lines(ours, command) == lines(peer, command), rest


def test_reset_begins_anew_and_keeps_what_is_there(make_server):
    server = make_server().start()
    with server.connect() as connection:
        for i in range(10):
            connection.set(f"k{i}", b"1")
            connection.get(f"k{i}")
        connection.get("absent")
        # The connection with which the start was awaited may not be gone yet.
        wait_for(lambda: connection.statistics()["curr_connections"] == "1")
        connection.send(b"stats reset\r\n")
        assert connection.read_line() == b"RESET\r\n"
        after = connection.statistics()
        for name in ("cmd_get", "cmd_set", "get_hits", "get_misses", "total_items", "total_connections"):
            assert after[name] == "0", name
        assert after["curr_items"] == "10" and after["curr_connections"] == "1"
        connection.get("k1")
        assert connection.statistics()["cmd_get"] == "1"


def test_conns_tells_of_listeners_and_clients(both):
    ours, peer = both()
    for server in (ours, peer):
        with server.connect() as idle, server.connect() as connection:
            idle.call(b"version\r\n")
            listed = connection.statistics("conns")
            mine = "tcp:127.0.0.1:%d" % connection.socket.getsockname()[1]
            other = "tcp:127.0.0.1:%d" % idle.socket.getsockname()[1]
            here = f"tcp:127.0.0.1:{server.port}"
            by_address = {value: name.split(":")[0] for name, value in listed.items() if name.endswith(":addr")}
            assert set(by_address) == {mine, other, here}
            assert listed[by_address[here] + ":state"] == "conn_listening"
            assert by_address[here] + ":listen_addr" not in listed
            assert listed[by_address[mine] + ":state"] == "conn_parse_cmd"
            assert listed[by_address[other] + ":state"] in ("conn_read", "conn_waiting", "conn_new_cmd", "conn_mwrite")
            assert listed[by_address[mine] + ":listen_addr"] == here
            assert {name.split(":")[1] for name in listed} == {"addr", "listen_addr", "state", "secs_since_last_cmd"}
            # In the middle of a pipeline.
            connection.send(b"version\r\nstats conns\r\nmn\r\n")
            assert connection.read_line().startswith(b"VERSION ")
            while (line := connection.read_line()) != b"END\r\n":
                assert line.startswith(b"STAT ")
            assert connection.read_line() == b"MN\r\n"


@pytest.mark.cold_tier
def test_our_own_figures_stand_under_tiers(make_server):
    server = make_server().start()
    with server.connect() as connection:
        connection.set("k", b"1")
        said = connection.statistics("tiers")
    assert said["hot_items"] == "1"
    assert {"promotions", "demotions", "cold_items", "cold_hits", "cold_file_bytes", "cold_limit"} <= set(said)


def test_unknown_topics_are_errors(both):
    ours, peer = both()
    for topic in (b"foo", b"proxy", b"itemss", b"item", b"SETTINGS", b"sizes_disable"):
        assert lines(ours, b"stats %s\r\n" % topic) == [b"ERROR\r\n"], topic
    assert lines(peer, b"stats foo\r\n") == [b"ERROR\r\n"]


def wait_for(condition, seconds: float = 20) -> None:
    import time
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
