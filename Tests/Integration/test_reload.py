"""Settings from a file: what is said about them, and what a reload makes of changes while the server serves."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time

import pytest

import server as harness
from configured import ConfiguredServer, program
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


#: Two values of each setting that a reload applies. Those that would make commands fail, as they are told to, do not.
LIVE = {
    "udp-reply-datagrams": ("4", "8"), "max-connections": ("200", "300"), "reject-at-maximum": ("true", "false"),
    "requests-per-event": ("20", "3"), "idle-timeout": ("0", "1h"), "disable-flush-all": ("false", "true"),
    "enable-shutdown": ("false", "true"), "disable-dumping": ("false", "true"), "disable-watch": ("false", "true"),
    "log.level": ("notice", "trace"), "log.format": ("text", "json"), "log.keys": ("false", "true"),
    "hot.memory": ("16m", "48m"), "hot.max-item-size": ("1m", "2m"), "hot.no-evictions": ("false", "true"),
    "hot.favor-small": ("true", "false"), "hot.demote-after": ("0", "1s"), "cold.interval": ("1s", "20ms"),
    "cold.start-wait": ("500ms", "0"), "cold.when-slow": ("wait", "drop"), "cold.promotion.reads": ("1", "0"),
    "cold.limit": ("1g", "32m"), "cold.admission.write-budget": ("0", "100k"),
}
#: Changed by tests of their own.
LIVE_ELSEWHERE = {"auth-file", "tls.certificate", "tls.key", "tls.key-format", "tls.client-roots", "tls.ciphers",
                  "tls.min-version"}
#: What else has to change with a setting for commands to go on as before.
TOGETHER = {"hot.no-evictions": {"hot.memory": "256m"}}


def test_every_live_setting_is_changed_under_load():
    manual = (harness.ROOT / "docs" / "tuning.md").read_text()
    live = set(re.findall(r"^\| `([^`]+)` \| [^|]+ \| live \|", manual, re.MULTILINE))
    assert live == set(LIVE) | LIVE_ELSEWHERE


@pytest.mark.bounded(300)
def test_no_command_fails_while_every_live_setting_changes(configured, loadgen, say):
    """Each to its other value and back, one after the other, then all at once; the load never has an error."""
    rounds = 5 if harness.LONG else 1
    server = configured(**{key.replace(".", "__").replace("-", "_"): values[0] for key, values in LIVE.items()})
    seconds = rounds * len(LIVE) * 2 * 0.12 + 2
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
    failures: list = []

    def change(settings: dict[str, str]) -> None:
        server.change(settings)
        said = server.reload()
        if "nothing" in said or "restart" in said or "applied" not in said:
            failures.append(said)

    changes = 0
    try:
        for _ in range(rounds):
            for key, (first, other) in LIVE.items():
                before = {name: server.settings[name] for name in TOGETHER.get(key, {})}
                change({key: other} | TOGETHER.get(key, {}))
                time.sleep(0.05)
                change({key: first} | before)
                changes += 2
        harmless = {key: values[1] for key, values in LIVE.items() if key not in TOGETHER}
        change(harmless)
        change({key: values[0] for key, values in LIVE.items()})
    finally:
        results = [json.loads(load.communicate(timeout=200)[0]) for load in loads]
    assert not failures, failures
    for result in results:
        assert (result["wrong"], result["errors"]) == (0, 0), result
    say(f"{changes + 2} reloads; " + ", ".join(f"{result['ops_per_s']:,}" for result in results) + " operations a second")
    server.terminate()
