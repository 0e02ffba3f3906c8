"""The site's own settings, in a worker process of the bench. The parent sets the environment (``workers``).

Everything as in production (journal on, INFO log), except that allauth's rate limits would stop the measurement.
``BENCH_FLAVOUR=plain`` is a site with a minimal allauth provider and nothing of ours in the sign-in.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

from sipgate_project.settings import *  # noqa: F403  # the same, but for what follows

INSTALLED_APPS += ["bench", "bench.plain"]  # noqa: F405  # from the site's settings
ROOT_URLCONF = "bench.urls"
ACCOUNT_RATE_LIMITS = False
BENCH_COUNTERPART = os.environ["BENCH_COUNTERPART"]

if os.environ.get("BENCH_FLAVOUR") == "plain":
    SOCIALACCOUNT_ADAPTER = "allauth.socialaccount.adapter.DefaultSocialAccountAdapter"
    SOCIALACCOUNT_STORE_TOKENS = True
SOCIALACCOUNT_PROVIDERS["plain"] = {  # noqa: F405  # from the site's settings
    "APPS": [{"name": "plain", "client_id": CLIENT_ID, "secret": CLIENT_SECRET}],  # noqa: F405  # from the site's settings
    "SCOPE": ["account:read"],
}

# The real package, if it was installed for the bench (--peers); its shape is re-created in ``peers`` otherwise.
if find_spec("social_django") and os.environ.get("BENCH_FLAVOUR") != "plain":
    INSTALLED_APPS += ["social_django"]
    AUTHENTICATION_BACKENDS += ["bench.social.Backend"]  # noqa: F405  # from the site's settings
    SOCIAL_AUTH_BENCH_KEY, SOCIAL_AUTH_BENCH_SECRET = CLIENT_ID, CLIENT_SECRET  # noqa: F405  # from the site's settings
