"""A sign-in never narrows a living grant: what was allowed before is asked for again in the same visit."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.socialaccount.models import SocialAccount
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model

from sipgate_provider import tokens
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from tests.journey import Browser

User = get_user_model()
WIDE = {"account:read", "numbers:read", "history:read"}


@pytest.fixture
def wide(browser: Browser, settings: Any) -> Browser:
    """Somebody who allowed more than the site usually asks for, and is signed in nowhere now but at sipgate."""
    configure(settings, sorted(WIDE))
    browser.sign_in()
    assert granted() == WIDE
    configure(settings, ["account:read"])
    browser.site.post("/accounts/logout/")
    return browser


def configure(settings: Any, scope: list[str]) -> None:
    app = settings.SOCIALACCOUNT_PROVIDERS["sipgate"]["APPS"]
    settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": app, "SCOPE": scope}}


def granted() -> set[str]:
    return set(SipgateToken.objects.get().scopes)


def follow(browser: Browser, path: str) -> tuple[str, list[str]]:
    """Go wherever site and sipgate lead; return the last path at the site, and the addresses at sipgate on the way."""
    at_sipgate: list[str] = []
    for _ in range(10):
        answer = browser.site.get(path)
        if answer.status_code != 302 or not answer.headers["Location"].startswith(
            ("/oauth", "http")
        ):
            return answer.headers.get("Location", path), at_sipgate
        path = answer.headers["Location"]
        if path.startswith(django_settings.SIPGATE_AUTH_URL):
            at_sipgate.append(path)
            path = browser.consent(path)
    raise AssertionError("sent in circles")


def prompts(addresses: list[str]) -> list[str]:
    return [parse_qs(urlsplit(address).query).get("prompt", [""])[0] for address in addresses]


@pytest.mark.parametrize("process", ["login", "connect"])
@pytest.mark.parametrize("reason", [Reason.NONE, Reason.REFUSED, Reason.SIGN_IN_REQUIRED])
def test_what_was_allowed_is_asked_for_again(wide: Browser, process: str, reason: str) -> None:
    """A plain sign-in, and the repair of a connection that ended or of which an administrator asked it."""
    if reason:
        SipgateToken.objects.update(state=State.NEEDS_SIGN_IN, reason=reason)
    if process == "connect":
        wide.site.force_login(
            User.objects.get(), backend="django.contrib.auth.backends.ModelBackend"
        )
    end, addresses = follow(wide, wide.consent(wide.start(process=process, next_url="/?here=1")))
    assert end == "/?here=1"
    assert prompts(addresses) == ["none"]
    assert granted() == WIDE
    assert tokens.token(SocialAccount.objects.get()).value
    assert wide.site.get("/account.json").json()["connections"][0]["fresh"]
    assert wide.sandbox.control.state()["reuses"] == 0


def test_once_per_sign_in(wide: Browser) -> None:
    callback = wide.consent(wide.start())
    assert follow(wide, callback)[1]
    assert follow(wide, callback) == ("/account", [])
    assert follow(wide, wide.consent(wide.start()))[0] == "/account"
    assert granted() == WIDE


def test_a_sign_in_that_asks_for_all_of_it_makes_no_detour(wide: Browser, settings: Any) -> None:
    configure(settings, sorted(WIDE))
    assert wide.sign_in().headers["Location"] == "/account"
    assert granted() == WIDE


def test_a_further_scope_is_added(wide: Browser, settings: Any) -> None:
    configure(settings, ["account:read", "users:read"])
    assert follow(wide, wide.consent(wide.start()))[0] == "/account"
    assert granted() == {*WIDE, "users:read"}


@pytest.mark.parametrize(
    "trouble", ["interaction_required", "login_required", "invalid_scope", "unavailable", "lost"]
)
def test_the_grant_at_hand_lives_on(wide: Browser, trouble: str) -> None:
    """The person withdrew the consent, signed out of sipgate, the client lost a scope, or sipgate has trouble."""
    callback = wide.consent(wide.start(next_url="/?here=1"))
    second = wide.site.get(wide.site.get(callback).headers["Location"]).headers["Location"]
    state = parse_qs(urlsplit(second).query)["state"][0]
    if trouble in {"unavailable", "lost"}:
        wide.sandbox.control.fault({"lost": "lose-answer"}.get(trouble, trouble), on="token")
        back = wide.consent(second)
    else:
        back = f"/oauth?state={state}&error={trouble}"
    end, _addresses = follow(wide, back)
    assert end == "/?here=1"
    assert granted() == {"account:read"}
    page = wide.site.get("/").content.decode()
    assert "history:read" in page
    assert "numbers:read" in page
    assert "history:read" not in wide.site.get("/").content.decode(), "told once"


def test_what_sipgate_takes_away_is_believed_and_told(wide: Browser, settings: Any) -> None:
    configure(settings, sorted(WIDE))
    callback = wide.consent(wide.start())
    wide.sandbox.control.fault("scope-less", on="token")
    assert follow(wide, callback) == ("/account", [])
    (lost,) = WIDE - granted()
    assert lost in wide.site.get("/").content.decode()


@pytest.mark.parametrize("reason", [Reason.REVOKED, Reason.ENDED_BY_PERSON])
def test_what_was_ended_on_purpose_is_not_asked_for(wide: Browser, reason: str) -> None:
    SipgateToken.objects.update(state=State.NEEDS_SIGN_IN, reason=reason)
    wide.site.force_login(User.objects.get(), backend="django.contrib.auth.backends.ModelBackend")
    assert wide.sign_in(process="connect").headers["Location"] == "/accounts/3rdparty/"
    assert granted() == {"account:read"}


def test_somebody_else_at_sipgate_changes_nothing(wide: Browser, another_browser: Browser) -> None:
    """Between the two trips the browser's session at sipgate became another person's."""
    second = wide.site.get(wide.sign_in().headers["Location"]).headers["Location"]
    wide.sipgate.cookies.clear()
    wide.sipgate.cookies.update(another_browser.sipgate.cookies)
    another_browser.sign_in(person="2000000w0")
    wide.sipgate.cookies.update(another_browser.sipgate.cookies)
    wide.consent(another_browser.start(query=""), person="2000000w0")
    own = SipgateToken.objects.get(connection__uid="1000000w0")
    others = SipgateToken.objects.values().get(connection__uid="2000000w0")
    end, _addresses = follow(
        wide, wide.consent(second.replace("prompt=none", "prompt=login"), person="2000000w0")
    )
    assert end == "/account"
    after = SipgateToken.objects.get(connection__uid="1000000w0")
    assert (after.generation, set(after.scopes)) == (own.generation, {"account:read"})
    assert SipgateToken.objects.values().get(connection__uid="2000000w0") == others


def test_an_anonymous_redirect_asks_for_nothing(wide: Browser) -> None:
    assert wide.sign_in(process="redirect", next_url="/?x=1").headers["Location"] == "/?x=1"
    assert granted() == WIDE


def test_both_consents_are_in_the_history(wide: Browser) -> None:
    follow(wide, wide.consent(wide.start()))
    notes = list(TokenEvent.objects.order_by("id").values_list("note", flat=True))
    assert [set(note.split()) for note in notes] == [WIDE, {"account:read"}, WIDE]
