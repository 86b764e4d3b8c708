"""What comes with the program to have it run elsewhere: the checks of health and readiness of Dockerfile and StatefulSet, what they
say of settings, users and volumes, the units of systemd, and completions. (`make fresh` builds the package and the image.)
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml

import server as harness

sys.path.append(str(harness.ROOT / "Tests" / "Fresh"))

from containerfile import stages  # noqa: E402

PACKAGING = harness.ROOT / "packaging"
IMAGE = dict(stages((PACKAGING / "Dockerfile").read_text())[-1].instructions)
SERVICE, SET = yaml.safe_load_all((PACKAGING / "kubernetes" / "statefulset.yaml").read_text())
POD = SET["spec"]["template"]["spec"]
CONTAINER, = POD["containers"]
#: As systemd rates what a service may do that it does not need; 10 is the worst.
MOST_EXPOSURE = 1.5

CHECKS = {"Dockerfile": json.loads(IMAGE["HEALTHCHECK"].partition("CMD ")[2])}
CHECKS |= {probe: CONTAINER[probe]["exec"]["command"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_of_health_tells_a_server_from_none(make_server, name):
    server = make_server().start()

    def status() -> int:
        words = [word.replace("11211", str(server.port)) for word in CHECKS[name]]
        return subprocess.run(words, capture_output=True, timeout=20).returncode

    assert status() == 0
    server.terminate()
    assert status() != 0


def test_a_check_of_health_tells_a_server_from_something_else(tmp_path):
    """From one that takes a connection and says nothing: the check ends by itself."""
    import socket
    with socket.create_server(("127.0.0.1", 0)) as silent:
        words = [word.replace("11211", str(silent.getsockname()[1])) for word in CHECKS["Dockerfile"]]
        assert subprocess.run(words, capture_output=True, timeout=20).returncode != 0


def size(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMG])i?", text.upper().replace("GI", "G").replace("MI", "M")).groups()
    return int(number) << {"K": 10, "M": 20, "G": 30}[unit]


def test_the_image_says_how_it_is_to_be_run():
    assert IMAGE["USER"] not in ("root", "0") and IMAGE["STOPSIGNAL"] == "SIGTERM"
    assert IMAGE["ENV"] == f"STATE_DIRECTORY={IMAGE['VOLUME']}" and IMAGE["EXPOSE"] == "11211"
    assert "--home-dir " + IMAGE["VOLUME"] in stages((PACKAGING / "Dockerfile").read_text())[-1].instructions[0][1]


def test_the_stateful_set_fits_the_image_and_itself(tmp_path):
    user = re.search(r"--uid (\d+)", (PACKAGING / "Dockerfile").read_text())[1]
    assert POD["securityContext"]["runAsUser"] == int(user) and POD["securityContext"]["runAsNonRoot"]
    assert SET["spec"]["selector"]["matchLabels"] == SET["spec"]["template"]["metadata"]["labels"] == SERVICE["spec"]["selector"]
    assert SET["spec"]["serviceName"] == SERVICE["metadata"]["name"] and SERVICE["spec"]["clusterIP"] == "None"
    volume, = CONTAINER["volumeMounts"]
    claim, = SET["spec"]["volumeClaimTemplates"]
    assert volume["name"] == claim["metadata"]["name"] and volume["mountPath"] == IMAGE["VOLUME"]
    # A clean stop has time.
    assert POD["terminationGracePeriodSeconds"] >= 60

    # Its settings are some, and the server takes them, with its arguments.
    environment = {entry["name"]: entry["value"] for entry in CONTAINER["env"]}
    done = subprocess.run([harness.BINARY, "print-config", *CONTAINER["args"]], env=harness.ENVIRONMENT | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, value in environment.items():
        assert re.search(rf": {value} +# .*{name}$", done.stdout, re.MULTILINE), (name, done.stdout)
    # The file and 5 percent, and what the process takes with items of 1 KB in it, have room.
    limit, memory = size(environment["THERMOCLINE_COLD_LIMIT"]), size(environment["THERMOCLINE_HOT_MEMORY"])
    assert limit * 1.05 <= size(claim["spec"]["resources"]["requests"]["storage"])
    assert memory * 1.1 + (16 << 20) + limit / 1000 * 24 <= size(CONTAINER["resources"]["requests"]["memory"]) * 1.02


@pytest.fixture
def units(tmp_path):
    """The units, of the program under test."""
    for path in (PACKAGING / "systemd").iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("/usr/bin/thermocline", str(harness.BINARY)))
    return tmp_path


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(units):
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", units / "thermocline.service", units / "thermocline.socket"],
                          capture_output=True, text=True, timeout=50)
    assert [line for line in (done.stdout + done.stderr).splitlines() if "thermocline" in line] == []


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_the_service_may_do_no_more_than_it_needs(units):
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", units / "thermocline.service"],
                          capture_output=True, text=True, timeout=50)
    assert float(re.search(r"exposure level for thermocline.service: ([\d.]+)", done.stdout)[1]) <= MOST_EXPOSURE, done.stdout + done.stderr


def test_bash_completes_commands_and_options(tmp_path):
    script = subprocess.run([harness.BINARY, "--generate-completion-script", "bash"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "completions").write_text(script)
    bash = 'source "$0"; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); function=$(complete -p thermocline | sed "s/.*-F \\([^ ]*\\).*/\\1/"); ' \
           '$function thermocline "${@: -1}" "${@: -2:1}"; echo "${COMPREPLY[@]}"'
    for words, expected in ((("thermocline", "insp"), "inspect"), (("thermocline", "serve", "--cold-li"), "--cold-limit")):
        done = subprocess.run(["bash", "-c", bash, tmp_path / "completions", *words], capture_output=True, text=True)
        assert expected in done.stdout.split(), done
