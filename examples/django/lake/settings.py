"""The smallest project with cached pages and sessions: no database."""

import os

# Only for trying it on one's own machine.
SECRET_KEY = os.environ.get("SECRET_KEY", "for trying only")
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

ROOT_URLCONF = "lake.urls"
INSTALLED_APPS = ["lake"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
]
USE_TZ = True

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
        "LOCATION": os.environ.get("CACHE_LOCATION", "127.0.0.1:11211"),
    }
}

# Sessions live in the cache alone. A cache that forgets would log everybody out at each restart.
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
SESSION_COOKIE_AGE = 30 * 24 * 3600

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"lake": {"handlers": ["console"], "level": "INFO"}},
}
