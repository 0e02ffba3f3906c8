"""A callback that is asked for again, whatever stores the sessions: its code is sent once, no session is harmed."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.utils import timezone

from sipgate_provider.models import UsedState
from sipgate_provider.sign_in import states
from tests.journey import HOST, Browser

User = get_user_model()
ENGINES = ["db", "cache", "cached_db", "signed_cookies"]


@pytest.fixture(params=ENGINES)
def engine(request: Any, settings: Any) -> str:
    if request.param == "signed_cookies" and connection.vendor == "postgresql":
        pytest.skip(
            "The list of sessions, which this site keeps, cannot store the key of a session in a cookie."
        )
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    return str(request.param)


def as_before(browser: Browser) -> Client:
    """Return the browser as it is now: what it is told from here on does not arrive there."""
    client = Client(headers={"host": HOST})
    client.cookies.load({name: morsel.value for name, morsel in browser.site.cookies.items()})
    return client


def codes_sent(browser: Browser) -> int:
    return int(browser.sandbox.control.state().get("token", 0))


def follow(client: Client, path: str) -> Any:
    """Go wherever the site leads; return the first answer that leads elsewhere or nowhere."""
    answer = client.get(path)
    while answer.status_code == 302 and answer.headers["Location"].startswith("/oauth"):
        assert "code=" not in answer.headers["Location"]
        answer = client.get(answer.headers["Location"])
    return answer


@pytest.mark.parametrize("save_every_request", [False, True])
def test_dropped_answer(
    browser: Browser, settings: Any, engine: str, save_every_request: bool
) -> None:
    """The first answer is lost, and the session of the request is gone: sign-in begins again, once."""
    settings.SESSION_SAVE_EVERY_REQUEST = save_every_request
    callback = browser.consent(browser.start(next_url="/?here=1"))
    dropped = as_before(browser)
    assert browser.site.get(callback).headers["Location"] == "/?here=1"
    repeated = dropped.get(callback)
    assert repeated.status_code == 302
    assert django_settings.SESSION_COOKIE_NAME not in repeated.cookies, (
        "it may be that of the session made meanwhile"
    )
    authorize = follow(dropped, callback).headers["Location"]
    assert authorize.startswith(django_settings.SIPGATE_AUTH_URL)
    assert codes_sent(browser) == 1
    assert dropped.get(browser.consent(authorize)).headers["Location"] == "/?here=1"
    assert User.objects.count() == 1
    assert codes_sent(browser) == 2


def test_once_per_state(browser: Browser) -> None:
    callback = browser.consent(browser.start())
    dropped, late = as_before(browser), as_before(browser)
    browser.site.get(callback)
    assert follow(dropped, callback).status_code == 302
    answer = follow(late, callback)
    assert answer.status_code == 401
    assert "does not belong to this browser session" in answer.content.decode()


@pytest.mark.parametrize("save_every_request", [False, True])
def test_back_after_success(
    browser: Browser, settings: Any, engine: str, save_every_request: bool
) -> None:
    settings.SESSION_SAVE_EVERY_REQUEST = save_every_request
    callback = browser.consent(browser.start())
    for _ in range(3):
        assert follow(browser.site, callback).headers["Location"] == "/account"
        assert browser.site.get("/account.json").status_code == 200
    assert codes_sent(browser) == 1


def test_back_after_connecting(browser: Browser, engine: str) -> None:
    user = User.objects.create_user("local", password="correct horse battery")
    browser.site.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    callback = browser.consent(browser.start(process="connect", next_url="/account"))
    for _ in range(2):
        assert follow(browser.site, callback).headers["Location"] == "/account"
    assert codes_sent(browser) == 1


def test_back_to_a_sign_up_that_waits(browser: Browser, settings: Any, engine: str) -> None:
    """Nobody is signed in yet; the session holds what is needed to go on."""
    settings.SOCIALACCOUNT_AUTO_SIGNUP = False
    callback = browser.consent(browser.start())
    for _ in range(2):
        assert follow(browser.site, callback).headers["Location"] == "/accounts/3rdparty/signup/"
    assert codes_sent(browser) == 1


def test_of_another_browser(browser: Browser, another_browser: Browser) -> None:
    callback = browser.consent(browser.start())
    another_browser.start()  # it has a cookie and a session of its own
    for _ in range(2):
        answer = another_browser.site.get(callback)
        assert answer.status_code == 401
        assert "does not belong to this browser session" in answer.content.decode()
        browser.site.get(callback)
    assert codes_sent(browser) == 1
    assert another_browser.site.get("/account.json").status_code == 401


def test_a_failed_one_begins_again(browser: Browser) -> None:
    callback = browser.consent(browser.start())
    browser.sandbox.control.fault("unavailable", on="token")
    assert browser.site.get(callback).status_code == 401
    assert (
        follow(browser.site, callback)
        .headers["Location"]
        .startswith(django_settings.SIPGATE_AUTH_URL)
    )


def test_one_under_way_is_waited_for(browser: Browser) -> None:
    callback = browser.consent(browser.start())
    repeated = as_before(browser)
    browser.sandbox.control.fault("slow", on="token", seconds=0.8)
    first = threading.Thread(target=browser.site.get, args=(callback,))
    first.start()
    while not UsedState.objects.exists():
        assert first.is_alive()
    repeated.get(callback)
    assert UsedState.objects.get().outcome == UsedState.Outcome.COMPLETED
    first.join(10)


def test_a_killed_one_is_waited_for_only_so_long(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "WAIT", 0.3)
    monkeypatch.setattr(
        states, "finish", lambda *_args, **_kwargs: None
    )  # the worker is killed before
    callback = browser.consent(browser.start())
    dropped = as_before(browser)
    browser.site.get(callback)
    assert (
        follow(dropped, callback).headers["Location"].startswith(django_settings.SIPGATE_AUTH_URL)
    )


def test_a_session_that_is_replaced_at_this_moment(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another tab signs in between looking at the session and storing it."""
    callback = browser.consent(browser.start())
    real = states.use

    def use(request: Any, state_id: str) -> bool:
        type(request.session)(request.session.session_key).delete()
        return real(request, state_id)

    monkeypatch.setattr(states, "use", use)
    answer = browser.site.get(callback)
    assert (answer.status_code, codes_sent(browser)) == (302, 0)
    assert (
        follow(browser.site, callback)
        .headers["Location"]
        .startswith(django_settings.SIPGATE_AUTH_URL)
    )


def test_only_get(browser: Browser) -> None:
    callback = browser.consent(browser.start())
    assert browser.site.head(callback).status_code == 405
    assert browser.site.post(callback).status_code == 405
    assert browser.site.get(callback).status_code == 302


def test_cookie_and_row_tell_nothing(browser: Browser, settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = True
    callback = browser.consent(browser.start())
    cookie = browser.site.cookies[states.COOKIE]
    assert cookie["httponly"]
    assert cookie["secure"]
    assert cookie["samesite"] == "Lax"
    settings.SESSION_COOKIE_SECURE = False
    browser.site.get(callback)
    row = repr(UsedState.objects.values().get())
    code, state = (
        part.partition("=")[2]
        for part in callback.partition("?")[2].split("&")
        if part[:5] in {"code=", "state"}
    )
    assert cookie.value not in row
    assert code not in row
    assert state not in row


def test_old_rows_go(browser: Browser) -> None:
    browser.sign_in()
    browser.start()
    assert UsedState.objects.count() == 1
    UsedState.objects.update(used_at=timezone.now() - timedelta(hours=2))
    browser.start()
    assert UsedState.objects.count() == 0


def test_strict_session_cookie(browser: Browser, settings: Any) -> None:
    """The session's cookie does not come along from another site: a page of ours asks once more."""
    settings.SESSION_COOKIE_SAMESITE = "Strict"
    callback = browser.consent(browser.start())
    without = Client(headers={"host": HOST})
    page = without.get(callback)
    assert page.status_code == 200
    assert callback.replace("&", "&amp;") in page.content.decode()
    assert browser.site.get(f"{callback}&_redir=").headers["Location"] == "/account"
    assert without.get(f"{callback}&_redir=").status_code == 401
