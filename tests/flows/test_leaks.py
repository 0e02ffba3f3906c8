"""No secret gets anywhere but where it belongs: collect real ones, then look everywhere."""

from __future__ import annotations

import base64
import io
import logging
import uuid
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.socialaccount.models import SocialAccount
from allauth.socialaccount.providers.oauth2 import views as allauth_views
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core import mail
from django.core.management import call_command
from django.db import connection as database
from django.utils.log import AdminEmailHandler
from django.views.debug import ExceptionReporter

from sipgate_provider import background, errors, tokens
from sipgate_provider.models import SipgateToken, Version
from sipgate_provider.remote import line, oauth
from sipgate_provider.remote.secret import Secret
from sipgate_provider.sign_in import oauth as sign_in
from sipgate_provider.tokens import journal, sealing
from tests.raw_server import serving, whole

User = get_user_model()


def test_nowhere(browser, secrets, caplog, settings, capfd, ask_for):
    caplog.set_level(logging.DEBUG)
    responses = []

    def seen(response):
        responses.append(response.content + repr(sorted(response.headers.items())).encode())
        return response

    # a pending sign-up: the address is taken, so allauth parks the sign-in in the session
    User.objects.create_user("taken", email="rosa@rosenduft.example")
    ask_for("account:read", "users:read", VERIFIED_EMAIL=True)
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
    form = {"username": "rosa", "email": "other@rosenduft.example"}
    response = seen(browser.site.post("/accounts/3rdparty/signup/", form))
    assert response.headers["Location"] == "/account"
    connection = SocialAccount.objects.get()

    # use, refresh, failures
    seen(browser.site.get("/account"))
    seen(browser.site.get("/account.json"))
    seen(browser.site.post("/account/refresh", {"connection": connection.pk}))
    for fault in ("unknown-error", "malformed-json", "lose-answer"):
        browser.sandbox.control.fault(fault, on="refresh")
        SipgateToken.objects.update(next_attempt_at=None)
        seen(browser.site.post("/account/refresh", {"connection": connection.pk}))
    browser.sandbox.control.kill_session()
    SipgateToken.objects.update(next_attempt_at=None)
    seen(browser.site.get("/account"))

    # the admin
    browser.log_in(User.objects.create_superuser("admin"))
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
    background.errands.wait_idle(10)

    out = io.StringIO()
    call_command("dumpdata", stdout=out)
    secrets.assert_absent("dumpdata", out.getvalue())
    secrets.assert_absent("the database", whole_database())
    secrets.assert_absent("the sessions", sessions())
    secrets.assert_absent("the responses", b"\n".join(responses))
    secrets.assert_absent("the log", caplog.text)
    captured = capfd.readouterr()
    secrets.assert_absent("standard output", captured.out + captured.err)


@pytest.mark.parametrize("fault", ["slow", "malformed-json", "lose-answer", "too large"])
def test_not_in_error_reports(browser, secrets, monkeypatch, fault):
    """What Django mails or shows of an exception: text, local variables, chained causes."""
    browser.sign_in()
    connection = SocialAccount.objects.get()
    secrets.learn("access token", tokens.token(connection).value)
    monkeypatch.setattr(oauth, "ANSWER_SECONDS", 1)
    if fault == "too large":
        monkeypatch.setattr(line, "LONGEST_BODY", 1000)  # the tokens are longer
    else:
        browser.sandbox.control.fault(fault, on="refresh", times=2, seconds=3)
    with pytest.raises(errors.SipgateError) as caught:
        tokens.refresh(connection)
    report = ExceptionReporter(None, caught.type, caught.value, caught.tb)
    shown = report.get_traceback_html() + report.get_traceback_text()
    error: BaseException | None = caught.value
    while error is not None:
        shown += repr(error.args) + repr(vars(error))
        error = error.__cause__ or error.__context__
    assert "tokens/refresh.py" in shown
    secrets.assert_absent("the error report", shown)


@pytest.mark.parametrize("failing", ["complete", "exchange"])
def test_not_in_the_report_of_a_failing_sign_in(browser, secrets, settings, monkeypatch, failing):
    """A fault of our own in the callback: the mail to the admins shows no secret.

    Servers and proxies keep the address in more places than ``QUERY_STRING``.
    """
    callback = browser.consent(browser.start())
    for name in ("code", "state"):
        secrets.learn(name, parse_qs(urlsplit(callback).query)[name][0])

    def broken(*_args, **_kwargs):
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

    TOKENS = oauth.Tokens.parse(
        {"access_token": "at-unmistakable", "refresh_token": "rt-unmistakable"},
        issued_at=datetime.now(UTC),
    )
    WORK: ClassVar[dict[str, Callable[[], Any]]] = {
        "write": lambda: journal.write(Version(1, uuid.uuid4(), 1), TestFrames.TOKENS),
        "seal": lambda: sealing.seal(TestFrames.TOKENS.to_text(), place="somewhere"),
        "unseal": lambda: sealing.unseal("12345678.x", place="somewhere"),
        "seal pending": lambda: sign_in.sealed(TestFrames.TOKENS),
    }

    @pytest.mark.parametrize("work", [*WORK])
    def test_show_no_token(self, settings, tmp_path, work):
        settings.SIPGATE_JOURNAL_DIR = str(tmp_path)
        settings.SIPGATE_TOKEN_KEYS = ("not a key",)
        with pytest.raises(errors.Misconfigured) as caught:
            self.WORK[work]()
        shown = [repr(entry.frame.f_locals) for entry in caught.traceback[1:]]
        assert len(shown) >= 2
        assert "unmistakable" not in "".join(shown)

    def test_of_a_request_show_no_form(self, monkeypatch):
        """A time limit of a server may strike at any line, with an exception that nobody expects."""

        def interrupt(_connection):
            raise RuntimeError

        monkeypatch.setattr(HTTPConnection, "getresponse", interrupt)
        with serving(whole("200 OK")) as server, pytest.raises(RuntimeError) as caught:
            oauth.exchange_code(
                oauth.Client(client_id="x", client_secret="unmistakable", token_url=server.url),
                code=Secret("unmistakable"),
                redirect_uri="http://localhost/",
                code_verifier=Secret("unmistakable"),
            )
        shown = [repr(entry.frame.f_locals) for entry in caught.traceback[2:]]
        assert len(shown) >= 4
        assert "unmistakable" not in "".join(shown)


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
    """Return SQLite's files, which also have what was deleted."""
    name = Path(database.settings_dict["NAME"])
    return b"".join(path.read_bytes() for path in name.parent.glob(name.name + "*"))
