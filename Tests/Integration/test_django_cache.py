"""Django's memcached backends, PyMemcacheCache and PyLibMCCache: the low-level API, `cache_page`, sessions and fragments of
templates, with all items in RAM, with each in the file, and over a restart.
"""

from __future__ import annotations

import re
import textwrap
import time
from pathlib import Path

import django
import pytest
from django.conf import settings
from django.core.cache import caches

from places import EVERY_BYTE, wait_for

BACKENDS = {"pymemcache": "django.core.cache.backends.memcached.PyMemcacheCache",
            "pylibmc": "django.core.cache.backends.memcached.PyLibMCCache"}

computed: list[str] = []


def page(request, name: str):
    from django.http import HttpResponse

    computed.append(name)
    return HttpResponse(f"{name} {len(computed)}".encode() + bytes(range(128, 256)))


def visits(request):
    from django.http import HttpResponse

    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


if not settings.configured:
    settings.configure(
        SECRET_KEY="for tests", ALLOWED_HOSTS=["testserver"], ROOT_URLCONF=__name__, USE_TZ=True, INSTALLED_APPS=[],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}},
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}])
    django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402
from django.template import engines  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import override_settings  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.cache import cache_page  # noqa: E402

urlpatterns = [path("page/<str:name>/", cache_page(900)(page)), path("visits/", visits)]


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.client(f"Django {backend.rsplit('.')[-1]}", "text", package="Django"))
                        for name, backend in BACKENDS.items()])
def cache(request, place):
    """The default cache, of this backend; a second one, `other`, has a prefix and a version."""
    common = {"BACKEND": BACKENDS[request.param], "LOCATION": place.address}
    if request.param == "pylibmc":
        common["OPTIONS"] = {"behaviors": {"retry_timeout": 1}}
    with override_settings(CACHES={"default": common, "other": {**common, "KEY_PREFIX": "other", "VERSION": 2, "TIMEOUT": 1}}):
        yield caches["default"]
        caches.close_all()


def test_the_low_level_api(cache, place):
    values = {"text": "value", "number": 42, "bytes": EVERY_BYTE, "none": None, "object": {"a": [1, 2.5, "\u00fc"]}, "empty": "",
              "true": True, "large": EVERY_BYTE * (place.large // 256)}
    for key, value in values.items():
        cache.set(key, value, 1000)
    place.settle()
    missing = object()
    for key, value in values.items():
        assert cache.get(key, missing) == value and key in cache, key
    place.settle()
    assert cache.get_many([*values, "absent"]) == values
    assert cache.get("absent") is None and cache.get("absent", 7) == 7 and "absent" not in cache
    assert cache.get_or_set("made", lambda: "once", 100) == "once"
    place.settle()
    assert cache.get_or_set("made", lambda: "twice", 100) == "once"
    assert not cache.add("text", "x") and cache.add("added", "x") and cache.get("added") == "x"
    place.settle()
    assert (cache.incr("number"), cache.incr("number", 7), cache.decr("number", 10)) == (43, 50, 40)
    with pytest.raises(ValueError):
        cache.incr("absent")

    many = {f"many{i}": f"value {i}" for i in range(300)}
    assert cache.set_many(many, 1000) == []
    place.settle()
    assert cache.get_many(many) == many
    cache.delete_many(list(many)[:100])
    place.settle()
    assert len(cache.get_many(many)) == 200
    assert cache.delete("text") and not cache.delete("text") and cache.get("text") is None

    cache.set("short", "x", 1)
    cache.set("touched", "x", 1000)
    cache.set("forever", "x", None)
    cache.set("never", "x", 0)
    assert cache.get("never") is None
    place.settle()
    assert cache.touch("touched", 1) and not cache.touch("absent", 1) and cache.touch("forever", None)
    wait_for(lambda: cache.get_many(["short", "touched"]) == {})
    assert cache.get("forever") == "x"


def test_versions_and_prefixes_are_apart(cache, place):
    other = caches["other"]
    cache.set("key", "mine", 1000)
    other.set("key", "theirs", 1000)
    cache.set("key", "second", 1000, version=2)
    place.settle()
    assert (cache.get("key"), other.get("key"), cache.get("key", version=2)) == ("mine", "theirs", "second")
    cache.incr_version("key", 4)
    place.settle()
    assert cache.get("key") is None and cache.get("key", version=5) == "mine"
    other.set("default", "x")  # its TIMEOUT is a second
    wait_for(lambda: other.get("default") is None)
    cache.clear()
    assert cache.get("key", version=5) is None and other.get("key") is None


def test_pages_and_sessions_outlive_a_restart(cache, place):
    visitor = Client()
    del computed[:]
    first = {name: visitor.get(f"/page/{name}/").content for name in "abc"}
    assert [visitor.get("/visits/").content for _ in range(3)] == [b"1", b"2", b"3"]
    place.settle()
    assert {name: visitor.get(f"/page/{name}/").content for name in "abc"} == first and computed == ["a", "b", "c"]
    assert visitor.get("/visits/").content == b"4"
    stranger = Client()
    assert stranger.get("/visits/").content == b"1"

    place.restart()
    # A client that finds its connection closed may miss once; a session that it misses would be a new one.
    wait_for(lambda: cache_answers(cache))
    assert visitor.get("/visits/").content == b"5" and stranger.get("/visits/").content == b"2"
    assert {name: visitor.get(f"/page/{name}/").content for name in "abc"} == first and computed == ["a", "b", "c"]
    place.settle()
    visitor.cookies.clear()
    assert visitor.get("/visits/").content == b"1"


def cache_answers(cache) -> bool:
    try:
        cache.set("probe", time.monotonic())
        return cache.get("probe") is not None
    except Exception:  # each library has its own for a connection that was lost
        return False


def test_fragments_of_templates(cache, place):
    template = engines["django"].from_string("{% load cache %}{% cache 900 side visitor %}{{ when }}{% endcache %}")
    assert template.render({"visitor": 1, "when": "first"}) == "first"
    place.settle()
    assert template.render({"visitor": 1, "when": "second"}) == "first"
    assert template.render({"visitor": 2, "when": "second"}) == "second"


@pytest.mark.parametrize("kind", ["file", "database"])
def test_what_was_in_an_older_cache_is_taken_along(cache, place, tmp_path, kind):
    """As docs/from-django-cache.md says."""
    if kind == "file":
        old = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path / "cache")}
    else:
        old = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "old_cache"}
        connections.databases["default"] = connections.configure_settings(
            {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "old.sqlite3")}})["default"]
    with override_settings(CACHES={"default": settings.CACHES["default"], "old": {**old, "OPTIONS": {"MAX_ENTRIES": 1000}}}):
        if kind == "database":
            call_command("createcachetable", verbosity=0)
        old, new = caches["old"], caches["default"]
        values = {f"report{i}": {"number": i, "bytes": EVERY_BYTE} for i in range(40)}
        old.set_many(values)
        if kind == "database":
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT cache_key FROM old_cache")
                keys = [row[0].removeprefix(":1:") for row in cursor.fetchall()]
        else:
            keys = list(values)
        page = (Path(__file__).resolve().parents[2] / "docs" / "from-django-cache.md").read_text()
        recipe = re.search(r"  ```python\n(.*?set_many.*?)  ```", page, re.DOTALL)[1]
        exec(textwrap.dedent(recipe), {"keys": keys})
        place.settle()
        assert new.get_many(values) == values
        connections.close_all()
