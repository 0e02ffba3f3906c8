"""Views that need sipgate, as browsers and programs meet them: where one is sent, and that one
comes back.
"""

from __future__ import annotations

import asyncio
import json
import re
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.socialaccount.models import SocialAccount
from asgiref.testing import ApplicationCommunicator
from django import urls
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.http import HttpResponse

from sipgate_provider.models import Reason, SipgateToken, State
from tests.conftest import make_stale
from tests.journey import HOST, Browser, asked_for
from tests.sample_site import SMS, company

pytestmark = pytest.mark.django_db(transaction=True)

User = get_user_model()
JSON = {"accept": "application/json"}
PLAIN = ["/company", "/company-async", "/class/company-async"]
SCOPED = ["/sms", "/class/sms"]
LOGIN = "/accounts/login/"
CONNECT = {"path": "/accounts/sipgate/login/", "process": "connect"}


class TestAdmitted:
    def test_view_has_a_client(self, signed_in):
        for path in PLAIN:
            response = signed_in.site.get(path)
            assert response.json()["company"] == "Rosenduft Gartenbau GmbH", path

    def test_costs_one_query_before_the_view(self, signed_in, django_assert_num_queries):
        signed_in.site.get("/company")
        with django_assert_num_queries(4):  # session, user, connection, and the client's token
            signed_in.site.get("/company")

    def test_scope_of_a_parent_suffices(self, signed_in):
        SipgateToken.objects.update(scope="account:read sessions:write")
        assert signed_in.site.get("/class/sms", headers=JSON).status_code == 200

    def test_async_view_does_not_block_the_loop(self, signed_in):
        signed_in.sandbox.control.fault("slow", on="account", seconds=0.5)
        answer = json.loads(get_async(signed_in, "/company-async").content)
        assert answer["company"] == "Rosenduft Gartenbau GmbH"
        assert answer["ticks"] > 10


class TestAnonymous:
    def test_browser_goes_to_the_login_page(self, browser):
        takes_both = "text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8"
        for path in PLAIN + SCOPED:
            response = browser.site.get(f"{path}?a=1&b=2", headers={"accept": takes_both})
            assert sent_to(response) == {"path": LOGIN, "next": f"{path}?a=1&b=2"}

    def test_program_gets_a_document(self, browser):
        for headers in (
            JSON,
            {"accept": "*/*"},
            {"accept": "application/problem+json, */*"},
            {"x-requested-with": "XMLHttpRequest"},
            {"sec-fetch-mode": "cors"},
            {"authorization": "Bearer unknown"},
        ):
            for path in PLAIN + SCOPED:
                response = browser.site.get(path, headers=headers)
                assert response.status_code == 401, (path, headers)
                assert response.headers["Content-Type"] == "application/problem+json"
                assert response.json()["action"] == LOGIN
                assert "no-store" in response.headers["Cache-Control"]

    def test_with_login_required_for_everything(self, browser, settings):
        auth = "django.contrib.auth.middleware"
        at = settings.MIDDLEWARE.index(f"{auth}.AuthenticationMiddleware") + 1
        more = [f"{auth}.LoginRequiredMiddleware"]
        settings.MIDDLEWARE = [*settings.MIDDLEWARE[:at], *more, *settings.MIDDLEWARE[at:]]
        assert browser.site.get("/tags").status_code == 302, "the middleware is in force"
        for path in ("/company", "/class/sms"):
            assert browser.site.get(path, headers=JSON).status_code == 401
            assert sent_to(browser.site.get(path)) == {"path": LOGIN, "next": path}
        browser.sign_in()
        assert browser.site.get("/company").status_code == 200


class TestNotConnected:
    def test_one_connects_and_comes_back(self, local):
        document = is_document(local.site.get("/company", headers=JSON), "not_connected")
        assert "process=connect" in document["action"]
        response = local.site.get("/company?a=1&b=2")
        back = "/company?a=1&b=2&sipgate_asked=1"
        assert sent_to(response) == CONNECT | {"next": back}
        _, answer = go_through(local, response)
        assert answer.headers["Location"] == back
        assert arrive(local, back) == ("/company?a=1&b=2", 200)
        assert SocialAccount.objects.get().user.username == "local"

    def test_needed_scope_is_asked_for_in_the_same_consent(self, local):
        authorize, _ = go_through(local, local.site.get("/sms"))
        assert asked_for(authorize) == {"account:read", SMS}
        assert local.site.get("/sms").content == b"sent"

    def test_a_site_without_sign_in_is_told_what_to_add(self, local, settings):
        settings.ROOT_URLCONF = (urls.path("company", company),)
        with pytest.raises(ImproperlyConfigured, match=r'include\("allauth.urls"\)'):
            local.site.get("/company")


class TestNeedsSignIn:
    def test_one_signs_in_again_and_comes_back(self, signed_in):
        SipgateToken.objects.update(state=State.NEEDS_SIGN_IN, reason=Reason.REJECTED)
        is_document(signed_in.site.get("/company", headers=JSON), "needs_sign_in")
        response = signed_in.site.get("/company?a=1")
        assert sent_to(response) == CONNECT | {"next": "/company?a=1&sipgate_asked=1"}
        go_through(signed_in, response)
        assert signed_in.site.get("/company?a=1").status_code == 200
        assert SipgateToken.objects.get().state == State.ACTIVE

    def test_session_that_turns_out_to_be_over(self, signed_in):
        signed_in.sandbox.control.kill_session()
        make_stale()
        assert sent_to(signed_in.site.get("/company"))["path"] == CONNECT["path"]
        assert sent_to(get_async(signed_in, "/company-async"))["path"] == CONNECT["path"]

    def test_ending_inside_the_view_is_a_page(self, signed_in):
        signed_in.sandbox.control.kill_session()
        response = signed_in.site.get("/company?a=1")
        assert response.status_code == 403
        start = "/accounts/sipgate/login/?process=connect&amp;next=%2Fcompany%3Fa%3D1&amp;repair="
        assert f'action="{start}' in response.content.decode()


class TestScope:
    def test_one_more_consent_and_back(self, signed_in):
        """The whole journey: page, connect page, sipgate, page."""
        response = signed_in.site.get("/sms?to=1&text=2")
        back = "/sms?to=1&text=2&sipgate_asked=1"
        assert sent_to(response) == CONNECT | {"next": back}
        page = signed_in.site.get(response.headers["Location"]).content.decode()
        assert "send text messages" in page, "the page says what will be asked for"
        authorize, answer = go_through(signed_in, response)
        assert asked_for(authorize) == {"account:read", SMS}
        assert answer.headers["Location"] == back
        assert arrive(signed_in, back) == ("/sms?to=1&text=2", 200)
        assert (SocialAccount.objects.count(), User.objects.count()) == (1, 1)
        assert set(SipgateToken.objects.get().scopes) == {"account:read", SMS}
        assert signed_in.asked("POST v2/sessions/sms") == 1

    def test_what_was_granted_before_is_kept(self, signed_in):
        SipgateToken.objects.update(scope="account:read numbers:read")
        authorize, _ = go_through(signed_in, signed_in.site.get("/class/sms"))
        assert asked_for(authorize) == {"account:read", "numbers:read", SMS}

    def test_consent_without_the_scope_does_not_end_in_circles(self, signed_in, settings):
        settings.SOCIALACCOUNT_LOGIN_ON_GET = True  # nothing but our guard is in the way then
        signed_in.sandbox.control.fault("change", on="token", value={"scope": "account:read"})
        started = signed_in.site.get(signed_in.site.get("/sms?to=1").headers["Location"])
        back = signed_in.site.get(signed_in.consent(started.headers["Location"]))
        response = signed_in.site.get(back.headers["Location"])
        page = response.content.decode()
        assert response.status_code == 403
        assert "A permission is missing" in page
        assert SMS in page
        # the page's button asks for the scope; allowed this time
        authorize, back = press(signed_in, "", page)
        assert SMS in asked_for(authorize)
        assert arrive(signed_in, back.headers["Location"])[1] == 200

    def test_after_a_denied_consent_one_may_try_again(self, signed_in):
        _, answer = go_through(signed_in, signed_in.site.get("/sms"), allow=False)
        assert answer.status_code == 401
        assert signed_in.site.get("/company").status_code == 200, "what there was still works"
        _, back = go_through(signed_in, signed_in.site.get("/sms"))
        assert arrive(signed_in, back.headers["Location"])[1] == 200

    def test_after_a_posted_form_one_comes_back_to_it(self, signed_in):
        for referrer, back in [
            (f"http://{HOST}/form?x=1", "/form?x=1"),
            (f"http://{HOST}", "/"),
            ("https://evil.example/form", "/"),
            (f"http://{HOST}//evil.example/form", "/"),
            (f"http://{HOST}/\\evil.example/form", "/"),
            ("javascript:alert(1)", "/"),
            ("", "/"),
        ]:
            response = signed_in.site.post("/sms", {"text": "2"}, headers={"referer": referrer})
            assert sent_to(response) == CONNECT | {"next": back}, referrer
        assert signed_in.asked("POST v2/sessions/sms") == 0

    def test_program_gets_a_document_whose_action_asks_for_it(self, signed_in):
        headers = {**JSON, "referer": f"http://{HOST}/page?x=1"}
        for path in SCOPED:
            response = signed_in.site.get(path, headers=headers)
            action = is_document(response, "missing_permission")["action"]
            assert "next=%2Fpage%3Fx%3D1" in action, "the page that asked, and not the document"
            started = signed_in.site.post(action)
            assert asked_for(started.headers["Location"]) == {"account:read", SMS}

    def test_rejection_inside_the_view_names_the_scope_and_asks_for_it(self, signed_in):
        response = signed_in.site.get("/numbers")
        page = response.content.decode()
        assert (response.status_code, "numbers:read" in page) == (403, True)
        authorize, back = press(signed_in, "", page)
        assert asked_for(authorize) == {"account:read", "numbers:read"}
        assert back.headers["Location"] == "/numbers"
        assert len(signed_in.site.get("/numbers").json()["numbers"]) == 25

    def test_what_is_not_booked_is_not_asked_for(self, signed_in):
        signed_in.sandbox.control.fault("forbidden", on="account")
        page = signed_in.site.get("/company").content.decode()
        assert "Not available for this sipgate account" in page
        assert "sipgate/login" not in page


class TestTrouble:
    def test_error_in_the_view_is_a_problem(self, signed_in, caplog):
        for path in PLAIN:
            for headers in ({}, JSON):
                signed_in.sandbox.control.fault("unknown-error", on="account", times=2)
                response = signed_in.site.get(path, headers=headers)
                page, kind = response.content.decode(), response.headers["Content-Type"]
                assert response.status_code == 503
                assert "sipgate cannot be reached" in page
                found = re.search(r'(?:<code>|"reference": ")([2-9A-HJ-NP-Z]{8})', page)
                assert f"[{found[1]}]: unavailable" in caplog.text
                assert headers or f'<a href="{path}"' in page, "a button tries it again"
                assert (kind == "application/problem+json") == bool(headers)

    def test_other_errors_stay_what_they_are(self, signed_in, monkeypatch):
        monkeypatch.setattr("sipgate_provider.client.SipgateClient.account", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            signed_in.site.get("/company")


class TestTransactions:
    def test_trouble_rolls_back_what_the_view_wrote(self, signed_in, atomic):
        assert signed_in.site.post("/write-and-fail").status_code == 502
        assert not User.objects.filter(username="written by the view").exists()

    @pytest.mark.parametrize("path", ["/company", "/never-atomic"])
    def test_ending_token_is_refreshed_before_the_transaction(self, signed_in, atomic, path):
        make_stale()
        response = signed_in.site.get(path)
        assert response.status_code == 200
        assert signed_in.asked("refresh") == 1
        if path == "/never-atomic":
            assert response.content == b"in a transaction: False"


class TestTags:
    def page(self, browser: Browser) -> str:
        response = browser.site.get("/tags")
        assert response.status_code == 200
        return response.content.decode()

    def test_nobody(self, browser):
        next_url = "&amp;next=%2Fthere%3Fx%3D1%26y%3D2"
        page = self.page(browser)
        assert ("state: none" in page, "usable: no" in page) == (True, True)
        assert f"url: /accounts/sipgate/login/?process=login{next_url}" in page
        browser.log_in(User.objects.create_user("local"))
        page = self.page(browser)
        assert "state: none" in page
        assert f"url: /accounts/sipgate/login/?process=connect{next_url}" in page

    def test_lacking_scope_and_the_button_that_asks_for_it(self, signed_in):
        page = self.page(signed_in)
        assert f"state: lacks {SMS}" in page
        assert "uid: 1000000w0 usable: no" in page
        assert 'name="csrfmiddlewaretoken"' in page
        assert asked_for(signed_in.start(process="connect")) == {"account:read"}, "no other does"
        authorize, back = press(signed_in, "", page)
        assert asked_for(authorize) == {"account:read", SMS}
        assert back.headers["Location"] == "/tags"
        page = self.page(signed_in)
        assert ("state: ready" in page, "usable: yes" in page) == (True, True)
        SipgateToken.objects.update(state=State.NEEDS_SIGN_IN)
        assert "state: ended" in self.page(signed_in)

    def test_wish_of_a_button_is_for_one_user(self, signed_in, another_browser):
        action = re.search(r'action="([^"]*)"', self.page(signed_in))
        started = another_browser.site.post(unescape(action[1]))
        assert asked_for(started.headers["Location"]) == {"account:read"}
        for forged in ("all", "WyIxIiwiYWxsIl0:1vNxyz:abc", "%5B%22all%22%5D"):
            started = another_browser.start(query=f"&sipgate_scopes={forged}")
            assert asked_for(started) == {"account:read"}, forged

    def test_connections_are_read_once(self, signed_in, django_assert_num_queries):
        self.page(signed_in)
        with django_assert_num_queries(3):  # session, user, connections
            self.page(signed_in)


@pytest.fixture(autouse=True)
def _sample(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.sample_site"


@pytest.fixture
def signed_in(browser: Browser) -> Browser:
    """Somebody who signed in with sipgate and allowed the usual."""
    browser.sign_in()
    return browser


@pytest.fixture
def atomic() -> Any:
    options = connections["default"].settings_dict
    before, options["ATOMIC_REQUESTS"] = options["ATOMIC_REQUESTS"], True
    connections.settings["default"]["ATOMIC_REQUESTS"] = True
    yield
    options["ATOMIC_REQUESTS"] = connections.settings["default"]["ATOMIC_REQUESTS"] = before


def sent_to(response: Any) -> dict[str, str]:
    """Return path and query of a redirect, but for what is signed (``test_repair``)."""
    assert response.status_code == 302, response.content[:500]
    parts = urlsplit(response.headers["Location"])
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    for signed in ("repair", "sipgate_scopes"):
        query.pop(signed, None)
    return {"path": parts.path, **query}


def arrive(browser: Browser, back: str) -> tuple[str, int]:
    """Come back from the connect page; return where one ends, and the status there."""
    address = browser.site.get(back).headers["Location"]
    return address, browser.site.get(address).status_code


def is_document(response: Any, kind: str) -> dict[str, str]:
    assert response.status_code == 403
    document: dict[str, str] = response.json()
    assert document["type"] == f"urn:sipgate-provider:problem:{kind}"
    return document


def get_async(browser: Browser, path: str) -> HttpResponse:
    """Ask the site as an ASGI server does, within an event loop."""
    cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in browser.site.cookies.items())
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", HOST.encode()), (b"cookie", cookies.encode())],
    }

    async def ask() -> HttpResponse:
        server = ApplicationCommunicator(ASGIHandler(), scope)
        await server.send_input({"type": "http.request"})
        start = await server.receive_output(10)
        body = await server.receive_output(10)
        await server.wait()
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return HttpResponse(body["body"], status=start["status"], headers=headers)

    return asyncio.run(ask())


def go_through(browser: Browser, response: Any, *, allow: bool = True) -> tuple[str, Any]:
    """Follow a redirect to the connect page, press its button, sign in at sipgate.

    Returns the address at sipgate, and the site's answer to the callback.
    """
    address = response.headers["Location"]
    page = browser.site.get(address)
    assert page.status_code == 200
    return press(browser, address, page.content.decode(), allow=allow)


def press(browser: Browser, address: str, page: str, *, allow: bool = True) -> tuple[str, Any]:
    """Press the page's one button that leads to sipgate."""
    form = next(
        form
        for form in re.findall(r"<form[^>]*>", page)
        if "logout" not in form and "i18n" not in form
    )
    action = re.search(r'action="([^"]*)"', form)
    started = browser.site.post(unescape(action[1]) if action else address)
    assert started.status_code == 302, started.content[:500]
    authorize = started.headers["Location"]
    return authorize, browser.site.get(browser.consent(authorize, allow=allow))
