"""No secret gets anywhere but where it belongs: collect real ones, then look everywhere."""

from __future__ import annotations

import base64
import io
import logging
import sys
import uuid
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.socialaccount.models import SocialAccount
from allauth.socialaccount.providers.oauth2 import views as allauth_views
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core import mail
from django.core.management import call_command
from django.db import connection as database
from django.test import RequestFactory
from django.utils.log import AdminEmailHandler
from django.views.debug import ExceptionReporter

from sipgate_provider import errors, tokens
from sipgate_provider.models import SipgateToken, Version
from sipgate_provider.remote import line, oauth
from sipgate_provider.sign_in import oauth as sign_in
from sipgate_provider.tokens import journal, sealing
from tests.flows.conftest import Secrets
from tests.journey import Browser

User = get_user_model()


def sessions() -> bytes:
    """Everything in the sessions, decoded and decompressed."""
    out = b""
    for session in Session.objects.all():
        out += session.session_data.encode() + repr(session.get_decoded()).encode()
        for part in session.session_data.split(":"):
            try:
                raw = base64.urlsafe_b64decode(part.lstrip(".") + "===")
                out += raw + (zlib.decompress(raw) if part.startswith(".") else b"")
            except (ValueError, zlib.error):
                continue
    return out


def whole_database() -> bytes:
    if database.vendor == "sqlite":
        name = Path(database.settings_dict["NAME"])
        return b"".join(path.read_bytes() for path in name.parent.glob(name.name + "*"))
    out = b""
    with database.cursor() as cursor:
        for table in database.introspection.table_names(cursor):
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            out += "\n".join(row[0] for row in cursor.fetchall()).encode()
    return out


def test_nowhere(browser: Browser, secrets: Secrets, caplog, settings, capfd) -> None:
    caplog.set_level(logging.DEBUG)
    responses = []

    def seen(response):
        responses.append(response.content + repr(sorted(response.headers.items())).encode())
        return response

    # a pending sign-up: the address is taken, so allauth parks the sign-in in the session
    User.objects.create_user(
        "taken", email="rosa@rosenduft.example", password="correct horse battery"
    )
    app = settings.SOCIALACCOUNT_PROVIDERS["sipgate"]["APPS"]
    settings.SOCIALACCOUNT_PROVIDERS = {
        "sipgate": {"APPS": app, "SCOPE": ["account:read", "users:read"], "VERIFIED_EMAIL": True}
    }
    settings.ACCOUNT_PREVENT_ENUMERATION = False
    authorize = browser.start()
    before_the_callback = sessions()
    response = seen(browser.site.get(browser.consent(authorize)))
    assert response.headers["Location"] == "/accounts/3rdparty/signup/"
    assert len(secrets.known) >= 5
    assert any(kind.startswith("verifier") for kind in secrets.known)
    secrets.assert_absent("the session before the callback", before_the_callback)
    secrets.assert_absent("the session of a pending sign-up", sessions())
    seen(browser.site.get("/accounts/3rdparty/signup/"))
    response = seen(
        browser.site.post(
            "/accounts/3rdparty/signup/", {"username": "rosa", "email": "other@rosenduft.example"}
        )
    )
    assert response.headers["Location"] == "/account"
    connection = SocialAccount.objects.get()

    # use, refresh, failures
    seen(browser.site.get("/account"))
    seen(browser.site.get("/account.json"))
    seen(browser.site.post("/account/refresh", {"connection": connection.pk}))
    for fault in ("unknown-error", "malformed-json", "bad-gateway"):
        browser.sandbox.control.fault(fault, on="refresh")
        SipgateToken.objects.update(next_attempt_at=None)
        seen(browser.site.post("/account/refresh", {"connection": connection.pk}))
    browser.sandbox.control.kill_session()
    SipgateToken.objects.update(next_attempt_at=None)
    seen(browser.site.get("/account"))

    # the admin
    admin = User.objects.create_superuser("admin", password="correct horse battery")
    browser.site.force_login(admin, backend="django.contrib.auth.backends.ModelBackend")
    connections = "/admin/socialaccount/socialaccount/"
    for action in ("refresh", "end_access"):
        for confirmed in ({}, {"confirmed": "yes"}):
            chosen = {"action": action, "_selected_action": connection.pk, **confirmed}
            seen(browser.site.post(connections, chosen, follow=True))
    for path in (
        "",
        "sipgate_provider/tokenevent/",
        "sipgate_provider/ending/",
        "socialaccount/socialaccount/",
        f"socialaccount/socialaccount/{connection.pk}/change/",
        f"socialaccount/socialaccount/{connection.pk}/delete/",
    ):
        page = seen(browser.site.get(f"/admin/{path}"))
        assert page.status_code == 200, path

    # disconnect
    connection.delete()
    tokens.errands.wait_idle(10)

    out = io.StringIO()
    call_command("dumpdata", stdout=out)
    secrets.assert_absent("dumpdata", out.getvalue())
    secrets.assert_absent("the database", whole_database())
    secrets.assert_absent("the sessions", sessions())
    secrets.assert_absent("the responses", b"\n".join(responses))
    secrets.assert_absent("the log", caplog.text)
    captured = capfd.readouterr()
    secrets.assert_absent("standard output", captured.out + captured.err)


@pytest.mark.parametrize(
    "fault", ["slow", "malformed-json", "unknown-error", "lose-answer", "huge"]
)
def test_not_in_error_reports(
    browser: Browser, secrets: Secrets, settings, fault: str, monkeypatch
) -> None:
    """What Django mails or shows of an exception: text, local variables, chained causes."""
    browser.sign_in()
    connection = SocialAccount.objects.get()
    secrets.learn("access token", tokens.token(connection).value)
    monkeypatch.setattr(oauth, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(line, "LONGEST_BODY", 1000)
    browser.sandbox.control.fault(fault, on="refresh", times=2, seconds=3)
    request = RequestFactory().get("/account")
    try:
        tokens.refresh(connection)
    except errors.SipgateError:
        kind, error, trace = sys.exc_info()
        report = ExceptionReporter(request, kind, error, trace)
        secrets.assert_absent(
            "the error report", report.get_traceback_html() + report.get_traceback_text()
        )
        chain, current = [], error
        while current is not None:
            chain.append(repr(current.args) + repr(vars(current)))
            current = current.__cause__ or current.__context__
        secrets.assert_absent("the exception", "\n".join(chain))
    else:
        pytest.fail("no error")


@pytest.mark.parametrize("failing", ["complete", "exchange"])
def test_not_in_the_report_of_a_failing_sign_in(
    browser: Browser, secrets: Secrets, settings: Any, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """A fault of our own in the callback: the mail to the admins shows no secret.

    Servers and proxies keep the address in more places than ``QUERY_STRING``.
    """
    callback = browser.consent(browser.start())
    for name in ("code", "state"):
        secrets.learn(name, parse_qs(urlsplit(callback).query)[name][0])

    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("a bug")

    if failing == "exchange":
        monkeypatch.setattr("sipgate_provider.remote.session.send", broken)
    else:
        monkeypatch.setattr(allauth_views, "complete_social_login", broken)
    settings.ADMINS = [("me", "me@example.org")]
    handler = AdminEmailHandler(include_html=True)
    logger = logging.getLogger("django.request")
    logger.addHandler(handler)
    browser.site.raise_request_exception = False
    elsewhere = {
        "RAW_URI": callback,
        "REQUEST_URI": callback,
        "HTTP_X_ORIGINAL_URI": f"https://here{callback}",
    }
    try:
        assert browser.site.get(callback, **elsewhere).status_code == 500
    finally:
        logger.removeHandler(handler)
    [message] = mail.outbox
    text = message.subject + message.body + str(message.alternatives)
    assert "a bug" in text
    assert "RAW_URI" in text
    for kind, value in secrets.known.items():
        assert value.rpartition(".")[2][-60:] not in text, kind


class TestFrames:
    """A crash report prints the local variables of every frame; ours hold no token."""

    GRANT = oauth.Tokens.parse(
        {
            "access_token": "at-unmistakable",
            "refresh_token": "rt-unmistakable",
            "id_token": "it-unmistakable",
        },
        issued_at=datetime.now(UTC),
    )

    def write(self) -> None:
        journal.write(Version(1, uuid.uuid4(), 1), self.GRANT)

    def seal(self) -> None:
        sealing.seal(self.GRANT.to_text(), place="somewhere")

    def unseal(self) -> None:
        sealing.unseal("12345678.x", place="somewhere")

    def seal_pending(self) -> None:
        sign_in.sealed(self.GRANT)

    @pytest.mark.parametrize("work", ["write", "seal", "unseal", "seal_pending"])
    def test_show_no_token(self, settings: Any, tmp_path: Path, work: str) -> None:
        settings.SIPGATE_JOURNAL_DIR = str(tmp_path)
        settings.SIPGATE_TOKEN_KEYS = ("not a key",)
        with pytest.raises(errors.Misconfigured) as caught:
            getattr(self, work)()
        shown = [repr(entry.frame.f_locals) for entry in caught.traceback[1:]]
        assert len(shown) >= 2
        assert "unmistakable" not in "".join(shown)
