import atexit
import signal
import subprocess
from pathlib import Path

import pytest

import client_table
import server as harness
from authority import Authority
from places import COLD, SecuredServer, open_place

atexit.register(harness.end_all)


def pytest_configure(config):
    config.addinivalue_line("markers", "bounded(seconds): the test may take this long (default 60)")
    config.addinivalue_line("markers", "cold_tier: needs a server that has a cold tier")
    config.addinivalue_line("markers", "client(name, protocol, package=name): shows a client of others; a row of the table of `make clients`")
    config.addinivalue_line("markers", "all_clients: only in `make clients`, which installs what it needs")
    config.pluginmanager.register(client_table.Table(), "client-table")


def pytest_collection_modifyitems(items):
    if not client_table.ALL:
        for item in items:
            if item.get_closest_marker("all_clients"):
                item.add_marker(pytest.mark.skip(reason="needs other languages; `make clients` installs and runs them"))
    if harness.is_memcached(harness.BINARY):
        skip = pytest.mark.skip(reason=f"{harness.BINARY.name} has no cold tier")
        for item in items:
            if item.get_closest_marker("cold_tier"):
                item.add_marker(skip)


def pytest_report_header():
    form = "long" if harness.LONG else "quick"
    return f"server: {harness.BINARY.name}, compared with {harness.PEER.name}; {form} form"


@pytest.fixture(autouse=True)
def time_limit(request):
    """Ends a test that hangs; the servers it started are ended with it."""
    marker = request.node.get_closest_marker("bounded")
    seconds = marker.args[0] if marker else 60

    def stop(*_):
        raise TimeoutError(f"the test took more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def make_server(tmp_path):
    """Makes servers with a directory of their own, not yet started; all are ended when the test is over."""
    made = []

    def make(*options, name="server", **settings):
        made.append(harness.Server(tmp_path / name, *options, **settings))
        return made[-1]

    yield make
    crashed = [one for one in made if one.has_crashed()]
    for one in made:
        one.kill()
    assert not crashed, f"the server ended by itself; it said: {crashed[0].log[-4000:]}"


@pytest.fixture(scope="module", params=["hot", pytest.param("cold", marks=pytest.mark.cold_tier)])
def started(request, tmp_path_factory):
    """A place whose items lie in RAM, or each in the file."""
    is_cold = request.param == "cold"
    server = harness.Server(tmp_path_factory.mktemp(request.param), *(COLD if is_cold else ()), memory=2 if is_cold else 64)
    yield open_place(request.param, server.start())
    crashed = server.has_crashed()
    server.kill()
    assert not crashed, server.log[-4000:]


@pytest.fixture
def place(started):
    """The same, empty."""
    with started.server.connect() as connection:
        assert connection.call(b"flush_all\r\n") == b"OK"
    return started


@pytest.fixture
def cold_and_secure(tmp_path):
    """A place whose items lie in the file and whose clients speak TLS, and the authority that they trust."""
    authority = Authority(tmp_path, "authority")
    server = SecuredServer(tmp_path / "server", authority.sign("server"), *COLD, memory=2).start()
    place = open_place("cold", server)
    place.client_port = server.secure_port
    yield place, authority
    crashed = server.has_crashed()
    server.kill()
    assert not crashed, server.log[-4000:]


@pytest.fixture(scope="session")
def loadgen(tmp_path_factory) -> Path:
    """The load generator, compiled."""
    program = tmp_path_factory.mktemp("loadgen") / "loadgen"
    source = Path(__file__).with_name("loadgen.c")
    subprocess.run(["cc", "-O2", "-pthread", "-o", program, source, "-lm"], check=True)
    return program


@pytest.fixture
def say(capsys):
    """Prints a line that a passing test shows as well."""

    def line(text: str) -> None:
        with capsys.disabled():
            print(f"\n    {text}", end="", flush=True)

    return line
