"""What the operators of another site read: its own settings, and no variable of this project's site."""

from __future__ import annotations

import re
import socket

from tests.package.conftest import Foreign
from tests.project.test_names import OF_SITE_ONLY

CLOSED = "http://127.0.0.1:{port}/auth/realms/elsewhere/protocol/openid-connect"
MISTAKES = """
SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": [{"client_id": "", "secret": "YOUR_CLIENT_SECRET"}]}}
SIPGATE_SCOPE = ["users:read"]
SIPGATE_REDIRECT_URI = "http://crm.example/nowhere"
SIPGATE_TOKEN_URL = "http://example.org/token"
SIPGATE_TOKEN_KEYS = []
SIPGATE_METRICS = True
SESSION_COOKIE_SAMESITE = "Strict"
SOCIALACCOUNT_STORE_TOKENS = SOCIALACCOUNT_EMAIL_AUTHENTICATION = True
CACHES = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache"}}
"""
EVERY_ERROR = """
from sipgate_provider import errors, problems
from sipgate_provider.remote import oauth

def tree(kind):
    known = [below for below in kind.__subclasses__() if below.__module__ == errors.__name__]
    return [kind, *(one for below in known for one in tree(below))]

for setting in (errors.CLIENT_ID, *oauth.OUR_FAULT.values()):
    for kind in tree(errors.SipgateError):
        error = kind(f"Check {setting}.")
        if isinstance(error, errors.Misconfigured):
            error.setting = error.setting or setting
        problem = problems.describe(error)
        print(problem.title, problem.text, problem.cure)
for kind in errors.Kind:
    print(problems.of_kind(kind))
"""


def read(text: str, *expected: str) -> None:
    assert not OF_SITE_ONLY.findall(text), text
    assert set(expected) <= set(re.findall(r"\w+", text)), text


class TestAnotherSite:
    def test_the_doctor_and_the_checks_name_its_settings(self, foreign_site: Foreign) -> None:
        site = foreign_site(MISTAKES)
        wanted = (
            "SIPGATE_SCOPE",
            "SIPGATE_TOKEN_URL",
            "SIPGATE_REDIRECT_URI",
            "SOCIALACCOUNT_PROVIDERS",
            "CACHES",
        )
        read(site.manage("sipgate_doctor", "--offline", check=False), *wanted)
        read(
            site.manage("check", "--deploy", "--database", "default", check=False),
            "SIPGATE_REDIRECT_URI",
        )
        read(site.manage("sipgate_status", check=False))

    def test_the_doctor_names_its_settings_when_nobody_answers(self, foreign_site: Foreign) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            url = CLOSED.format(port=probe.getsockname()[1])
        site = foreign_site(
            f"SIPGATE_AUTH_URL = '{url}/auth'; SIPGATE_TOKEN_URL = SIPGATE_API_URL = '{url}/token'"
        )
        found = site.manage("sipgate_doctor", "--problems", check=False)
        read(found, "SIPGATE_AUTH_URL", "SIPGATE_TOKEN_URL", "SIPGATE_API_URL")
        assert found.count("nothing listens there") == 3

    def test_every_error_names_its_settings(self, foreign_site: Foreign) -> None:
        read(
            foreign_site().python_says(EVERY_ERROR),
            "SIPGATE_TOKEN_URL",
            "SIPGATE_SCOPE",
            "SOCIALACCOUNT_PROVIDERS",
        )
