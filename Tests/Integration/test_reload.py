"""Settings from a file: what is said about them, and what a reload makes of changes while the server serves."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time

import pytest

import server as harness
from configured import LIVE, TOGETHER, ConfiguredServer, program
from server import Connection


@pytest.fixture
def configured(tmp_path):
    made = []

    def make(rules: list[str] | None = None, **settings: str) -> ConfiguredServer:
        named = {key.replace("__", ".").replace("_", "-"): value for key, value in settings.items()}
        made.append(ConfiguredServer(tmp_path / f"server-{len(made)}", named, rules))
        return made[-1].start()

    yield make
    for server in made:
        server.kill()


def eventually(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def limit(server: ConfiguredServer) -> int:
    with server.connect() as connection:
        return int(connection.statistics()["limit_maxbytes"])


@pytest.mark.parametrize("text, said", [
    ("port: 1\nhot:\n  memory: lots\n", "config.yaml, line 3: 'lots' is not allowed for hot.memory: a size as 64m"),
    ("colt:\n  limit: 1g\n", "config.yaml, line 2: there is no setting 'colt.limit'; did you mean 'cold.limit'?"),
    ("port: 1\nhot: {memory: 1g\n", "config.yaml, line 3: this is no YAML"),
    ("threads: 1\nthreads: 2\n", "config.yaml, line"),
    ("hot:\n  max-item-size: 512m\n", "half of the memory"),
])
def test_what_is_wrong_in_a_file_is_named_before_anything_is_opened(tmp_path, text, said):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    for arguments in (("check-config", str(path)), ("--config", str(path)), ("print-config", "--config", str(path))):
        done = program(*arguments)
        assert (done.returncode, done.stdout) == (78, ""), done
        assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_what_is_in_force_is_printed_with_its_origin_and_can_be_read_back(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("threads: 3\nhot:\n  memory: 128m\n")
    done = subprocess.run(
        [harness.BINARY, "print-config", "--config", path, "-t", "2", "-vv"], capture_output=True, text=True,
        env=harness.ENVIRONMENT | {"THERMOCLINE_BACKLOG": "7", "THERMOCLINE_THREADS": "9"})
    assert done.returncode == 0, done
    lines = {line.split(":")[0].strip(): line.split("# ", 1)[1] for line in done.stdout.splitlines() if "# " in line}
    assert lines["threads"] == "-t"
    assert lines["memory"] == f"{path}, line 3"
    assert lines["backlog"] == "the environment variable THERMOCLINE_BACKLOG"
    assert lines["level"] == "-v"
    assert lines["max-connections"] == "default"
    path.write_text(done.stdout)
    again = program("print-config", "--config", str(path))
    values = [[line.split(" # ")[0].rstrip() for line in text.splitlines() if not line.lstrip().startswith("#")]
              for text in (done.stdout, again.stdout)]
    assert values[0] == values[1]


def test_a_reload_applies_what_can_change_and_names_the_rest(configured):
    server = configured(hot__memory="64m")
    with server.connect() as old:
        old.set("a", b"1")
        server.change({"hot.memory": "128m", "threads": "4", "disable-flush-all": "true", "log.level": "debug"})
        said = server.reload()
        assert "applied: hot.memory 64m -> 128m" in said and "needs a restart: threads 2 -> 4" in said, said
        assert limit(server) == 128 << 20
        assert old.call(b"flush_all\r\n") == b"CLIENT_ERROR flush_all not allowed"
        assert old.get("a") == b"1"
        settings = old.statistics("settings")
        assert (settings["flush_enabled"], settings["verbosity"], settings["num_threads"]) == ("no", "2", "2")
    assert "threads" in server.log and "need a restart" in server.log
    # What waits is named again, and what is applied is not.
    said = server.reload()
    assert "no setting was changed" in said and "threads 2 -> 4" in said, said
    # More than there is address space for; the rest of the same change is applied.
    server.change({"hot.memory": "8g", "disable-flush-all": "false", "threads": "2"})
    said = server.reload()
    assert "needs a restart: hot.memory 128m -> 8g" in said and "applied: disable-flush-all true -> false" in said, said
    assert limit(server) == 128 << 20


def test_a_reload_changes_nothing_if_anything_is_wrong(configured):
    server = configured(hot__memory="64m")
    server.change({"hot.memory": "128m", "cold.interval": "soon"})
    said = server.reload(expected=78)
    assert "'soon' is not allowed for cold.interval" in said and "config.yaml, line" in said, said
    server.hang_up()
    eventually(lambda: server.log.count("nothing was changed") == 1)
    assert limit(server) == 64 << 20
    server.change({"cold.interval": "500ms", "auth-file": str(server.directory / "nothing")})
    # Whether there are passwords is decided at the start: this waits, the rest is applied.
    said = server.reload()
    assert "needs a restart: auth-file none -> " in said, said
    assert limit(server) == 128 << 20
    server.config.unlink()
    server.hang_up()
    eventually(lambda: server.log.count("nothing was changed") == 2)
    assert "can't read" in server.log


def test_passwords_and_other_settings_are_all_or_nothing_together(configured, tmp_path):
    users = tmp_path / "users"
    users.write_text("ann:secret\n")
    server = configured(auth_file=str(users), hot__memory="64m")
    users.write_text("no colon\n")
    server.change({"hot.memory": "128m"})
    assert "line 1" in server.reload(expected=78)
    other = tmp_path / "others"
    other.write_text("bob:secret\n")
    server.change({"auth-file": str(other)})
    assert "applied: auth-file" in server.reload()
    with server.connect() as connection:
        assert connection.call(b"set x 0 0 10\r\nbob secret\r\n") == b"STORED"
        assert connection.statistics()["limit_maxbytes"] == str(128 << 20)


def test_who_asks_for_a_reload_is_told_what_is_wrong_with_the_asking(configured, tmp_path):
    assert program("reload").returncode == 78
    done = program("reload", "-P", str(tmp_path / "nothing"))
    assert done.returncode == 78 and "pid file" in done.stderr
    done = program("reload", "--server-pid", "999999999")
    assert done.returncode == 1 and "No such process" in done.stderr
    server = configured()
    assert "no setting was changed" in program("reload", "--server-pid", str(server.pid)).stdout


def test_the_log_is_structured_and_its_level_and_form_change_live(configured):
    server = configured(log__format="json", log__level="info")
    first = [json.loads(line) for line in server.log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in first)
    server.change({"log.format": "text"})
    server.reload()
    last = server.log.splitlines()[-1]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z notice thermocline: the settings were read again "
                        r'log.format="json -> text"', last), last
    before = len(server.log)
    server.change({"log.level": "error"})
    server.reload()
    server.change({"log.level": "error", "idle-timeout": "7"})
    server.reload()
    assert "idle-timeout" not in server.log[before:]


def test_no_message_names_a_key_unless_that_was_asked_for(configured):
    server = configured(cold__limit="4m", cold__interval="20ms", log__level="debug")
    with server.connect() as connection:
        connection.set("secret-key", b"secret-value" * 30_000)
        eventually(lambda: "larger than the file takes" in server.log)
        assert "secret" not in server.log
        server.change({"log.keys": "true"})
        server.reload()
        connection.set("secret-key", b"secret-value" * 30_000)
        eventually(lambda: "larger than the file takes, it is in RAM alone key=secret-key" in server.log)
    assert "secret-value" not in server.log
    eventually(lambda: "connection closed" in server.log)


RULES_OF_THE_MANUAL = ['- {prefix: "report:weekly:", tier: cold}', '- {prefix: "session:", tier: hot}',
                       '- {prefix: "token:", persist: false}']


def rows(server: ConfiguredServer) -> int:
    with server.connect() as connection:
        return int(connection.statistics("tiers")["cold_rows_written"])


def test_weekly_reports_go_to_the_file_and_sessions_stay_in_ram(configured):
    server = configured(rules=RULES_OF_THE_MANUAL, cold__interval="20ms")
    with server.connect() as connection:
        connection.set("report:weekly:7", b"r" * 1000)
        connection.set("session:1", b"s")
        connection.set("token:1", b"t")
        connection.set("other", b"o")
        eventually(lambda: rows(server) == 2)
        statistics = connection.statistics("tiers")
        assert (statistics["cold_items"], statistics["hot_items"]) == ("2", "3")
        for _ in range(3):
            assert connection.get("report:weekly:7") == b"r" * 1000
        assert connection.statistics("tiers")["hot_items"] == "3"
        assert [connection.get(key) for key in ("session:1", "token:1", "other")] == [b"s", b"t", b"o"]
    server.terminate()
    server.start()
    with server.connect() as connection:
        assert [connection.get(key) for key in ("report:weekly:7", "session:1", "token:1")] == [b"r" * 1000, b"s", None]
        connection.set("token:1", b"new")
    # A crash: what is hot only has its row of the stop, as long as nobody changed it.
    server.kill()
    server.start()
    with server.connect() as connection:
        assert [connection.get(key) for key in ("session:1", "token:1", "other")] == [b"s", None, b"o"]


def test_a_reply_waits_for_the_commit_where_a_rule_says_so(configured):
    server = configured(rules=['- {prefix: "sure:", durability: always}'], cold__interval="1h")
    with server.connect() as connection:
        for i in range(20):
            connection.set(f"sure:{i}", b"%d" % i)
            connection.set(f"other:{i}", b"%d" % i)
        assert connection.call(b"incr sure:19 1\r\n") == b"20"
        assert connection.call(b"delete sure:0\r\n") == b"DELETED"
        connection.set("other:last", b"x")
    server.kill()
    server.start()
    with server.connect() as connection:
        assert connection.get("sure:0") is None and connection.get("sure:19") == b"20"
        assert all(connection.get(f"sure:{i}") == b"%d" % i for i in range(1, 19))
        assert connection.get("other:last") is None, "nothing but the rule's keys waited"


@pytest.mark.parametrize("rule, said", [
    ("- {tier: hot}", "rule 1 has no prefix"),
    ('- {prefix: "a", tire: hot}', "there is no setting 'rules.tire'; did you mean 'tier'?"),
    ('- {prefix: "a", tier: warm}', "'warm' is not allowed for rules.tier: both, hot, cold"),
    ('- {prefix: "a", max-ttl: 0}', "'0' is not allowed for rules.max-ttl"),
    ('- {prefix: "a", admission: {min-tll: 1s}}', "did you mean 'admission.min-ttl'?"),
    ('- {prefix: "a", tier: hot, durability: always}', 'rule 1 ("a"): durability, admission and promotion mean nothing'),
    ('- {prefix: "a", tier: cold, persist: false}', "exclude each other"),
    ('- {prefix: "a"}\n- {prefix: "ab"}', 'rule 2 ("ab") never counts: rule 1 ("a") comes first'),
    ('- {prefix: "a", promotion: {reads: 4, window: 0}}', "window is missing"),
    ('- {prefix: "%s"}' % ("a" * 251), "up to 250 bytes"),
    ("a", "must be a list"),
])
def test_a_rule_that_makes_no_sense_is_named(tmp_path, rule, said):
    path = tmp_path / "config.yaml"
    path.write_text(f"threads: 2\nrules:\n{rule}\n" if rule != "a" else "rules: a\n")
    done = program("check-config", str(path))
    assert done.returncode == 78 and said in done.stderr and "config.yaml, line" in done.stderr, done


#: Changed by tests of their own.
LIVE_ELSEWHERE = {"auth-file", "tls.certificate", "tls.key", "tls.key-format", "tls.client-roots", "tls.ciphers",
                  "tls.min-version"}
#: Of the keys that the load generator writes, some have each kind of rule.
RULES = [
    ['- {prefix: "key:00000001", tier: cold}'],
    ['- {prefix: "key:000000000", persist: false}', '- {prefix: "key:00000000", tier: hot}',
     '- {prefix: "key:", max-ttl: 1h}'],
    ['- {prefix: "key:000000001", durability: always}', '- {prefix: "key:00000000", durability: shutdown}',
     '- {prefix: "", admission: {seen-before: true, max-item-size: 2k}, promotion: {reads: 9, window: 10s}}'],
    [],
]


def test_every_live_setting_is_changed_under_load():
    manual = (harness.ROOT / "docs" / "settings.md").read_text()
    live = set(re.findall(r"^\| `([^`]+)` \| [^|]+ \| live \|", manual, re.MULTILINE))
    assert live == set(LIVE) | LIVE_ELSEWHERE | {"rules"}


@pytest.mark.bounded(300)
def test_no_command_fails_while_every_live_setting_changes(configured, loadgen, say):
    """Each to its other value and back, one after the other, then all at once; the load never has an error."""
    rounds = 5 if harness.LONG else 1
    server = configured(**{key.replace(".", "__").replace("-", "_"): values[0] for key, values in LIVE.items()})
    seconds = rounds * (len(LIVE) * 2 + len(RULES) * 4) * 0.08 + 2
    common = [loadgen, "--port", str(server.port), "--seconds", f"{seconds:.0f}"]
    loads = [
        subprocess.Popen([*common, *options], stdout=subprocess.PIPE, text=True)
        for options in (
            ("--mode", "mixed", "--keys", "20000", "--get-ratio", "0.7", "--value", "10-5000", "--pipeline", "10",
             "--conns", "10"),
            ("--mode", "mixed", "--keys", "50", "--first-key", "100000", "--get-ratio", "0.8", "--value",
             "60000-200000", "--conns", "4"),
        )
    ]
    changes = 0

    def change(settings: dict[str, str], rules: list[str] | None = None) -> None:
        server.change(settings, rules)
        server.hang_up()
        nonlocal changes
        changes += 1
        eventually(lambda: server.log.count("the settings were read again") == changes)

    try:
        for _ in range(rounds):
            for key, (first, other) in LIVE.items():
                before = {name: server.settings[name] for name in TOGETHER.get(key, {})}
                change({key: other} | TOGETHER.get(key, {}))
                time.sleep(0.05)
                change({key: first} | before)
            for rules in RULES * 2:
                change({}, rules)
                time.sleep(0.1)
        harmless = {key: values[1] for key, values in LIVE.items() if key not in TOGETHER}
        change(harmless)
        change({key: values[0] for key, values in LIVE.items()})
    finally:
        results = [json.loads(load.communicate(timeout=200)[0]) for load in loads]
    assert "nothing was changed" not in server.log and "need a restart" not in server.log, server.log[-2000:]
    assert "can't be written" not in server.log, server.log[-2000:]
    for result in results:
        assert (result["wrong"], result["errors"]) == (0, 0), result
    say(f"{changes} reloads; " + ", ".join(f"{result['ops_per_s']:,}" for result in results) + " operations a second")
    server.terminate()
