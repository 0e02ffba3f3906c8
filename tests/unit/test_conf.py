"""The app's settings: their defaults on a site that sets none, and that they are read at the moment
of use."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from sipgate_provider import conf
from sipgate_provider.models import ADVISORY_SHARE, MANDATORY_SHARE
from sipgate_provider.remote import line, oauth, session
from sipgate_provider.tokens import lease, rows
from sipgate_provider.tokens.refresh import LATEST

REALM = "https://login.sipgate.com/auth/realms/third-party/protocol/openid-connect"


def test_a_site_need_not_set_anything(bare):
    assert conf.auth_url() == f"{REALM}/auth"
    assert conf.token_url() == f"{REALM}/token"
    assert conf.revoke_url() == f"{REALM}/revoke"
    assert conf.logout_url() == f"{REALM}/logout"
    assert conf.issuer() == "https://login.sipgate.com/auth/realms/third-party"
    assert conf.api_url() == "https://api.sipgate.com/v2"
    assert (conf.redirect_uri(), conf.redirect_path()) == ("", "")
    assert conf.scope() == ["account:read"]
    assert conf.token_keys() == ()
    assert conf.journal_directory() is None


def test_no_endpoint_of_another_server_is_guessed(bare):
    for bare.SIPGATE_TOKEN_URL in ("https://x.example/token", "https://x.example/protocol/x/token"):
        bare.SIPGATE_AUTH_URL = bare.SIPGATE_TOKEN_URL
        assert (conf.revoke_url(), conf.logout_url(), conf.issuer()) == ("", "", "")


def test_the_windows_and_waits_fit_into_each_other(bare):
    longest_call = timedelta(seconds=sum(session.TIMEOUT))
    assert longest_call < rows.ASSUMED_LIFETIME * MANDATORY_SHARE
    assert 0 < MANDATORY_SHARE < ADVISORY_SHARE < 1
    assert line.CONNECT_SECONDS + oauth.ANSWER_SECONDS <= conf.wait_seconds() < 30, "as gunicorn"
    assert 0 < LATEST < lease.LENGTH.total_seconds() - oauth.ANSWER_SECONDS
    assert conf.page_wait() < 2


def test_each_is_read_when_used(bare):
    for setting, value, read, result in (
        ("API_URL", "https://x.example/v2/", conf.api_url, "https://x.example/v2"),
        ("ISSUER", "https://x.example", conf.issuer, "https://x.example"),
        ("REDIRECT_URI", "https://x.example/a/b?c", conf.redirect_path, "/a/b"),
        ("TOKEN_KEYS", ["a", "", None, "b"], conf.token_keys, ("a", "b")),
        ("SCOPE", ("a", "b"), conf.scope, ["a", "b"]),
        ("WAIT_SECONDS", 1, conf.wait_seconds, 1.0),
        ("PAGE_WAIT_SECONDS", 2, conf.page_wait, 2.0),
        ("ACCOUNT_MAX_AGE_SECONDS", 30, conf.account_max_age_seconds, 30.0),
        ("JOURNAL_DIR", "/x/y", conf.journal_directory, Path("/x/y")),
        ("JOURNAL_DIR", "", conf.journal_directory, None),
        ("REVOKE_URL", "off", conf.revoke_url, ""),
        ("REVOKE_URL", "https://x.example/revoke", conf.revoke_url, "https://x.example/revoke"),
        ("LOGOUT_URL", "off", conf.logout_url, ""),
    ):
        before = read()
        setattr(bare, f"SIPGATE_{setting}", value)
        assert read() == result, setting
        delattr(bare, f"SIPGATE_{setting}")
        assert read() == before, setting


def test_a_value_that_cannot_be_used_is_named_and_not_shown(bare):
    for name, value, read in (
        ("JOURNAL_DIR", 5, conf.journal_directory),
        ("TOKEN_KEYS", 5, conf.token_keys),
        ("HISTORY_DAYS", "s3cret", conf.history_days),
    ):
        setattr(bare, f"SIPGATE_{name}", value)
        with pytest.raises(ImproperlyConfigured, match=f"^SIPGATE_{name} has") as raised:
            read()
        assert str(value) not in str(raised.value)


@pytest.fixture
def bare(settings: Any) -> Any:
    """A site that has set nothing of ours."""
    for name in dir(django_settings):
        if name.startswith("SIPGATE_"):
            delattr(settings, name)
    return settings
