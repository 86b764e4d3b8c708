"""Clients of other languages, as Debian ships them: `programs/` says what each does, here with all items in RAM and with
each of them in the file, over a restart, and for those that can with TLS."""

from __future__ import annotations

import pytest

import client_table
from programs import PROGRAMS, Program, run_program


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The command that runs a program; compiled once."""
    commands = {}

    def prepare(program: Program) -> tuple[list[str], dict[str, str]]:
        if program.file not in commands:
            assert program.is_installed, f"it needs {', '.join(program.packages)}"
            commands[program.file] = program.prepare(tmp_path_factory.mktemp(program.name))
        return commands[program.file]

    return prepare


def spoken() -> list:
    """Each program in each of its protocols. Perl is on every Debian, so its client belongs to `make test` too."""
    return [pytest.param(program, protocol, id=f"{program.name}-{protocol}",
                         marks=[] if program.command == ("perl",) else pytest.mark.all_clients)
            for program in PROGRAMS for protocol in program.protocols]


@pytest.mark.bounded(300)
@pytest.mark.parametrize("program, protocol", spoken())
def test_a_program_finds_all_that_it_expects(place, prepared, record_property, program, protocol):
    command, environment = prepared(program)
    outcome = run_program(command, place, protocol, environment=environment)
    client_table.report(record_property, outcome.client, outcome.version, protocol, len(outcome.passed), len(outcome.failed))
    assert "\n".join(outcome.failed) == "" and len(outcome.passed) >= 12
    if place.name == "cold":
        # Since the restart, a read of each of 200 keys at least; all that was read before came from the file as well.
        assert place.cold_reads() >= 190 and outcome.settled >= 12


@pytest.mark.all_clients
@pytest.mark.cold_tier
@pytest.mark.bounded(120)
@pytest.mark.parametrize("program", [pytest.param(one, id=one.name) for one in PROGRAMS if one.speaks_tls])
def test_a_program_with_tls(cold_and_secure, prepared, record_property, program):
    place, authority = cold_and_secure
    command, environment = prepared(program)
    outcome = run_program(command, place, program.protocols[0], authority.roots, environment)
    client_table.report(record_property, outcome.client, outcome.version, f"{program.protocols[0]}, TLS",
                        len(outcome.passed), len(outcome.failed))
    assert "\n".join(outcome.failed) == ""
