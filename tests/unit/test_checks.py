"""Each setting that cannot work is found, with its cure, and nothing else."""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.db import connections
from django.test import override_settings

from sipgate_provider import database


def test_nothing_is_wrong_with_the_settings_of_the_tests():
    assert found() == {}


def test_each_mistake_alone():
    for name, change, words in MISTAKES:
        with override_settings(**change):
            messages = found()
        assert [*messages] == [name], (name, messages)
        assert words in messages[name].msg, (name, messages)
        assert messages[name].hint, name


def test_what_is_no_mistake():
    for change in NO_MISTAKES:
        with override_settings(**change):
            assert found() == {}, change


def test_what_is_wrong_for_a_site_that_others_use():
    for name, change, words in WHEN_DEPLOYED:
        with override_settings(**change):
            messages = found(include_deployment_checks=True)
        assert words in messages[name].msg, (name, messages)


def test_a_folder_for_the_journal_is_looked_at_and_not_made(tmp_path):
    (tmp_path / "file").touch()
    with override_settings(SIPGATE_JOURNAL_DIR=tmp_path / "file" / "journal"):
        assert [*found()] == ["E007"]
    with override_settings(SIPGATE_JOURNAL_DIR=tmp_path / "new" / "journal"):
        assert found() == {}
    assert not (tmp_path / "new").exists()


def test_strict_cookies_cost_a_click_and_are_no_mistake():
    with override_settings(SESSION_COOKIE_SAMESITE="Strict"):
        assert found() == {}


def test_a_cache_that_each_process_has_for_itself_keeps_no_sessions():
    engine = "django.contrib.sessions.backends.cache"
    with override_settings(SESSION_ENGINE=engine, CACHES=PER_PROCESS):
        assert [*found()] == ["W013"]


def test_options_of_sqlite(monkeypatch):
    alias = database.using()
    connection = connections[alias]
    monkeypatch.setattr(connection, "vendor", "sqlite")
    for change, name in (({"OPTIONS": {}}, "W031"), ({"ATOMIC_REQUESTS": True}, "W032")):
        good = {"OPTIONS": {"transaction_mode": "IMMEDIATE"}, "ATOMIC_REQUESTS": False}
        values = {**connection.settings_dict, **good, **change}
        monkeypatch.setattr(connection, "settings_dict", values)
        asked = {"tags": [checks.Tags.database], "databases": [alias]}
        assert [*found(**asked)] == [name]


# --- what is tried --------------------------------------------------------------------------------

SITE = "https://crm.example/oauth"
CLIENT = {"client_id": "1:third-party", "secret": "s"}


def clients(*apps: dict[str, Any]) -> dict[str, Any]:
    return {"sipgate": {"APPS": apps}}


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("E001", {"SIPGATE_TOKEN_KEYS": []}, "SIPGATE_TOKEN_KEYS"),
    ("E002", {"SIPGATE_TOKEN_KEYS": ["short"]}, "Entry 1"),
    (
        "E003",
        {"SOCIALACCOUNT_ADAPTER": "allauth.socialaccount.adapter.DefaultSocialAccountAdapter"},
        "SOCIALACCOUNT_ADAPTER",
    ),
    ("E005", {"USE_TZ": False}, "USE_TZ"),
    ("W010", {"ALLOWED_HOSTS": ["example.org"]}, "ALLOWED_HOSTS does not contain localhost"),
    ("W010", {"SIPGATE_REDIRECT_URI": "http://localhost:8080/elsewhere"}, "/elsewhere"),
    ("W010", {"SIPGATE_REDIRECT_URI": "http://localhost:8080/account"}, "no callback at"),
    ("W010", {"SIPGATE_REDIRECT_URI": "http://localhost:8080/oauth/"}, "no callback at"),
    ("W010", {"SIPGATE_REDIRECT_URI": "localhost/oauth"}, "not a full http(s) address"),
    ("E006", {"SIPGATE_API_URL": "http://api.sipgate.com/v2"}, "SIPGATE_API_URL"),
    ("W012", {"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"}, "cookie"),
    ("W014", {"SESSION_COOKIE_SECURE": True}, "SESSION_COOKIE_SECURE"),
    ("W015", {"SIPGATE_SCOPE": ["balance:read"]}, "account:read"),
    ("W016", {"SOCIALACCOUNT_EMAIL_AUTHENTICATION": True}, "EMAIL_AUTHENTICATION"),
    ("W017", {"ROOT_URLCONF": "allauth.account.urls", "SIPGATE_REDIRECT_URI": ""}, "no page where"),
    ("W018", {"SOCIALACCOUNT_PROVIDERS": clients(CLIENT, CLIENT)}, "2 clients"),
    ("W018", {"SOCIALACCOUNT_PROVIDERS": clients({**CLIENT, "secret": ""})}, "secret is empty"),
    ("W018", {"SOCIALACCOUNT_PROVIDERS": clients({"secret": "s"})}, "client_id is empty"),
    ("W019", {"SIPGATE_REDIRECT_URL": SITE}, "SIPGATE_REDIRECT_URI?"),
    ("W019", {"SIPGATE_SCOPES": []}, "SIPGATE_SCOPE?"),
]
NO_MISTAKES: list[dict[str, Any]] = [
    {"SIPGATE_WEBHOOK_URL": "of the site itself"},
    {"SIPGATE_SCOPE": "account:read users:read"},
    {"SIPGATE_SCOPE": None, "SIPGATE_API_URL": None, "SIPGATE_REDIRECT_URI": None},
    {"SOCIALACCOUNT_PROVIDERS": {}},
    {"SOCIALACCOUNT_PROVIDERS": clients(CLIENT, {**CLIENT, "settings": {"hidden": True}})},
]
PER_PROCESS = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
WHEN_DEPLOYED: list[tuple[str, dict[str, Any], str]] = [
    ("W021", {}, "SIPGATE_REDIRECT_URI is not https"),
    ("W022", {"CACHES": PER_PROCESS}, "CACHES"),
    ("W023", {"SIPGATE_JOURNAL_DIR": None}, "SIPGATE_JOURNAL_DIR"),
    ("W024", {"SIPGATE_TOKEN_KEYS": [], "DEBUG": True}, "SECRET_KEY"),
]


def found(**options: Any) -> dict[str, checks.CheckMessage]:
    """Return what this app's checks find, by id."""
    return {
        (message.id or "").partition(".")[2]: message
        for message in checks.run_checks(**{"tags": ["sipgate"], **options})
        if (message.id or "").startswith("sipgate_provider.")
    }
