"""The dashboard in a real browser: it draws, reads well wide and narrow, light and dark, and asks for nothing from elsewhere."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

import server as harness
from browser import Browser
from test_admin import admin_port

pytestmark = [pytest.mark.skipif(harness.is_memcached(harness.BINARY), reason="memcached has no such page"),
              pytest.mark.cold_tier]

#: Where the screenshots are kept, for somebody to look at; else they are thrown away.
SCREENSHOTS = os.environ.get("SCREENSHOTS")

READY = "document.body?.dataset.ready === 'yes'"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if shutil.which("chromium") is None and shutil.which("google-chrome") is None:
        pytest.fail("chromium is not installed")
    with Browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with more than its RAM holds, and a client that goes on reading it."""
    server = harness.Server(tmp_path_factory.mktemp("served"), "--admin-listen", "127.0.0.1:0", "--cold-limit", "64m", memory=2)
    server.start()
    over = threading.Event()

    def use() -> None:
        with server.connect() as connection:
            for i in range(2500):
                connection.set(f"{('session', 'page', 'user')[i % 3]}:{i}", b"v" * 2000)
            number = 0
            while not over.is_set():
                number = (number * 5 + 1) % 4096
                connection.get(f"{('session', 'page', 'user')[number % 3]}:{number}")

    client = threading.Thread(target=use)
    client.start()
    yield server
    over.set()
    client.join()
    server.kill()


def look(browser: Browser, server: harness.Server, width: int, dark: bool = False) -> None:
    browser.events.clear()
    browser.open(f"http://127.0.0.1:{admin_port(server)}/", width=width, dark=dark)
    browser.wait_until(READY)


@pytest.mark.bounded(90)
def test_it_draws_what_happens(browser, served, tmp_path):
    look(browser, served, 1280)
    # Two more samples: rates are there then.
    browser.wait_until("document.querySelectorAll('#hits .plot .area').length >= 2", 25)
    browser.wait_until("document.querySelectorAll('#latency .plot .line').length >= 3 && document.querySelectorAll('#flow .plot .area').length >= 2", 25)
    figures = browser.evaluate("[...document.querySelectorAll('.charts figure')].map(f => [f.id, f.querySelector('svg').getAttribute('aria-label')])")
    assert [name for name, _ in figures] == ["hits", "latency", "load", "flow", "memory", "file", "dirty", "process"]
    for name, label in figures:
        assert "NaN" not in label and "undefined" not in label and "Infinity" not in label, label
    values = dict(browser.evaluate("[...document.querySelectorAll('#tiles > div')].map(t => [t.children[0].textContent, t.children[1].textContent])"))
    assert list(values) == ["Hit ratio, last minute", "Commands, last minute", "p99 from RAM", "p99 from the file", "RAM", "File"]
    assert values["RAM"].endswith("MiB") and values["Hit ratio, last minute"].endswith("%")
    browser.wait_until("document.querySelectorAll('#prefixes tbody th').length === 3", 15)
    assert browser.evaluate("[...document.querySelectorAll('#checks li')].every(l => !l.classList.contains('failed'))")
    assert browser.evaluate("document.querySelectorAll('#settings tbody tr').length") > 10
    assert not browser.complaints()


@pytest.mark.parametrize("width, dark", [(1280, False), (1280, True), (400, False), (400, True)])
def test_it_fits_and_can_be_read(browser, served, tmp_path, width, dark):
    look(browser, served, width, dark)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    # No text is cut off by its box, and all of it stands out from its ground (WCAG 2.1: 4.5 to 1).
    assert browser.evaluate(CUT_OFF) == []
    assert browser.evaluate(FAINT) == []
    path = Path(SCREENSHOTS or tmp_path) / f"{width}-{'dark' if dark else 'light'}.png"
    browser.screenshot(path)
    assert path.stat().st_size > 20_000
    assert not browser.complaints()


def test_it_asks_for_nothing_from_elsewhere(browser, served):
    look(browser, served, 1280)
    own = f"http://127.0.0.1:{admin_port(served)}/"
    asked = browser.requested()
    assert len(asked) >= 6 and all(url.startswith((own, "data:")) for url in asked), asked
    # The policy holds: what a page could be made to run or load is refused.
    assert browser.evaluate("""new Promise(done => {
        document.addEventListener('securitypolicyviolation', () => done(true), {once: true});
        const script = document.createElement('script'); script.textContent = 'document.title = 1'; document.body.append(script);
        setTimeout(() => done(false), 2000); })""")


def test_a_keyboard_reaches_and_moves_along_the_charts(browser, served):
    look(browser, served, 1280)
    browser.wait_until("document.querySelectorAll('#memory .plot .area').length > 0", 15)
    order = []
    for _ in range(14):
        browser.press("Tab")
        order.append(browser.evaluate("document.activeElement.closest('figure')?.id ?? document.activeElement.className ?? document.activeElement.tagName"))
    assert order[0] == "skip" and [one for one in order if one in ("hits", "latency", "load", "flow")] == ["hits", "latency", "load", "flow"], order
    browser.evaluate("document.querySelector('#memory svg').focus()")
    browser.press("Home")
    assert browser.evaluate("document.querySelectorAll('.cursor').length") >= 8
    spoken = browser.evaluate("document.querySelector('#memory [aria-live]').textContent")
    assert spoken.startswith("Memory, ") and "hot tier" in spoken and "KiB" in spoken
    browser.press("Escape")
    assert browser.evaluate("document.querySelectorAll('.cursor').length") == 0


def test_what_a_screen_reader_needs_is_there(browser, served):
    look(browser, served, 1280)
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node.get("ignored")]
    for role in ("image", "figure", "table", "radio", "searchbox", "link"):
        assert all(name for found, name in named if found == role and role != "figure"), role
    assert sum(1 for role, _ in named if role == "image") >= 8
    assert sum(1 for role, _ in named if role == "heading") >= 11
    assert browser.evaluate("document.documentElement.lang") == "en"


def test_it_says_when_the_server_is_gone_and_goes_on_when_it_is_back(browser, make_server):
    server = make_server("--admin-listen", f"127.0.0.1:{harness.free_port()}").start()
    look(browser, server, 400)
    assert browser.evaluate("document.getElementById('lost').hidden")
    server.terminate()
    browser.wait_until("!document.getElementById('lost').hidden", 15)
    assert "No answer" in browser.evaluate("document.getElementById('lost').textContent")
    server.start()
    browser.wait_until("document.getElementById('lost').hidden", 15)


def test_without_a_cold_tier_nothing_is_shown_of_it(browser, make_server):
    server = make_server("--admin-listen", "127.0.0.1:0", cold=False).start()
    look(browser, server, 1280)
    time.sleep(0.1)
    shown = browser.evaluate("[...document.querySelectorAll('.charts figure')].filter(f => f.offsetParent).map(f => f.id)")
    assert shown == ["hits", "latency", "load", "memory", "process"]
    assert "file" not in browser.evaluate("document.getElementById('tiles').textContent").lower()
    assert not browser.complaints()


#: Boxes whose content is wider than they are, and that can't be scrolled.
CUT_OFF = """[...document.querySelectorAll('main *, header *')].filter(e => e.offsetParent && !e.closest('.hidden-text') && e.scrollWidth > e.clientWidth + 1
  && e.clientWidth > 1 && !(e instanceof SVGElement) && getComputedStyle(e).overflowX !== 'auto' && getComputedStyle(e).display !== 'inline')
  .map(e => e.tagName + '#' + e.id + '.' + e.className)"""

#: Texts of less than 4.5 to 1.
FAINT = """(() => {
  const rgb = text => (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const faint = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || e.closest('.hidden-text, noscript, script') || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), a = light(rgb(e instanceof SVGElement ? style.fill : style.color)), b = light(ground(e));
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.add(`${walker.currentNode.data.trim().slice(0, 20)}: ${contrast.toFixed(2)}`);
  }
  return [...faint];
})()"""
