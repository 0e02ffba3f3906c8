"""Views that need sipgate, as browsers and programs meet them: where one is sent, and that one comes back."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.socialaccount.models import SocialAccount
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth import get_user_model
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.http import HttpResponse

from sipgate_provider import tokens
from sipgate_provider.models import Reason, SipgateToken, State
from tests.journey import HOST, Browser, asked_for, go_through, press
from tests.sample_site import SMS

pytestmark = pytest.mark.django_db(transaction=True)

User = get_user_model()
JSON = {"accept": "application/json"}
PLAIN = ["/company", "/company-async", "/class/company-async", "/mixin/company-async"]
SCOPED = ["/sms", "/class/sms", "/mixin/sms"]


@pytest.fixture(autouse=True)
def _sample(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.sample_site"


@pytest.fixture
def signed_in(browser: Browser) -> Browser:
    """Somebody who signed in with sipgate and allowed the usual."""
    browser.sign_in()
    return browser


@pytest.fixture
def local(browser: Browser) -> Browser:
    """Somebody with a password here and no sipgate connection."""
    user = User.objects.create_user("local", password="correct horse battery")
    browser.site.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return browser


def sent_to(response: Any) -> tuple[str, dict[str, str]]:
    """Return path and query of a redirect, but for the connection that is to be repaired (``test_repair``)."""
    assert response.status_code == 302, response.content[:500]
    parts = urlsplit(response.headers["Location"])
    return parts.path, {
        name: values[0] for name, values in parse_qs(parts.query).items() if name != "repair"
    }


class TestAdmitted:
    @pytest.mark.parametrize("path", PLAIN)
    def test_view_has_a_client(self, signed_in: Browser, path: str) -> None:
        response = signed_in.site.get(path)
        assert response.json()["company"] == "Rosenduft Gartenbau GmbH"

    def test_costs_one_query_before_the_view(
        self, signed_in: Browser, django_assert_num_queries: Any
    ) -> None:
        signed_in.site.get("/company")
        with django_assert_num_queries(4):  # session, user, connection, and the client's token
            signed_in.site.get("/company")

    @pytest.mark.parametrize("path", SCOPED)
    def test_scope_of_a_parent_suffices(self, signed_in: Browser, path: str) -> None:
        SipgateToken.objects.update(scope="account:read sessions:write")
        response = signed_in.site.get(path, headers=JSON)
        assert response.status_code == (403 if path == "/sms" else 200), (
            "the sandbox itself wants the scope for an SMS"
        )
        assert b"missing_permission" not in response.content

    def test_async_view_does_not_block_the_loop(self, signed_in: Browser) -> None:
        signed_in.sandbox.control.fault("slow", on="account", seconds=0.5)
        answer = json.loads(get_async(signed_in, "/company-async").content)
        assert answer["company"] == "Rosenduft Gartenbau GmbH"
        assert answer["ticks"] > 10

    def test_ending_token_is_renewed_before_the_view(self, signed_in: Browser) -> None:
        age(SipgateToken.objects.get(), 400)
        assert signed_in.site.get("/company").status_code == 200
        assert signed_in.sandbox.control.state()["refresh"] == 1


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


def age(row: SipgateToken, seconds: int) -> None:
    SipgateToken.objects.filter(pk=row.pk).update(
        issued_at=row.issued_at - timedelta(seconds=seconds),
        expires_at=row.expires_at - timedelta(seconds=seconds),
    )


class TestAnonymous:
    @pytest.mark.parametrize("path", PLAIN + SCOPED)
    def test_browser_goes_to_the_login_page(self, browser: Browser, path: str) -> None:
        assert sent_to(browser.site.get(f"{path}?a=1&b=2")) == (
            "/accounts/login/",
            {"next": f"{path}?a=1&b=2"},
        )

    @pytest.mark.parametrize("path", PLAIN + SCOPED)
    @pytest.mark.parametrize(
        "headers",
        [JSON, {"x-requested-with": "XMLHttpRequest"}, {"accept": "application/problem+json, */*"}],
    )
    def test_program_gets_a_document(
        self, browser: Browser, path: str, headers: dict[str, str]
    ) -> None:
        response = browser.site.get(path, headers=headers)
        assert (response.status_code, response.headers["Content-Type"]) == (
            401,
            "application/problem+json",
        )
        assert response.json()["action"] == "/accounts/login/"
        assert "no-store" in response.headers["Cache-Control"]

    def test_browser_that_takes_json_too_is_a_browser(self, browser: Browser) -> None:
        headers = {"accept": "text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8"}
        assert browser.site.get("/company", headers=headers).status_code == 302

    @pytest.mark.parametrize("path", ["/company", "/class/sms", "/mixin/sms"])
    def test_with_login_required_for_everything(
        self, browser: Browser, settings: Any, path: str
    ) -> None:
        at = (
            settings.MIDDLEWARE.index("django.contrib.auth.middleware.AuthenticationMiddleware") + 1
        )
        middleware = "django.contrib.auth.middleware.LoginRequiredMiddleware"
        settings.MIDDLEWARE = [*settings.MIDDLEWARE[:at], middleware, *settings.MIDDLEWARE[at:]]
        assert browser.site.get("/tags").status_code == 302, "the middleware is in force"
        assert browser.site.get(path, headers=JSON).status_code == 401
        assert sent_to(browser.site.get(path))[1] == {"next": path}
        browser.sign_in()
        assert browser.site.get("/company").status_code == 200


class TestNotConnected:
    def test_one_connects_and_comes_back(self, local: Browser) -> None:
        response = local.site.get("/company?a=1&b=2")
        assert sent_to(response) == (
            "/accounts/sipgate/login/",
            {"process": "connect", "next": "/company?a=1&b=2"},
        )
        _, back = go_through(local, response)
        assert back.headers["Location"] == "/company?a=1&b=2"
        assert local.site.get("/company?a=1&b=2").status_code == 200
        assert SocialAccount.objects.get().user.username == "local"

    def test_needed_scope_is_asked_for_in_the_same_consent(self, local: Browser) -> None:
        authorize, _ = go_through(local, local.site.get("/sms"))
        assert asked_for(authorize) == {"account:read", SMS}
        assert local.site.get("/sms").content == b"sent"

    def test_program_gets_a_document(self, local: Browser) -> None:
        response = local.site.get("/company", headers=JSON)
        assert (response.status_code, response.json()["type"]) == (
            403,
            "urn:sipgate-provider:problem:not_connected",
        )
        assert "process=connect" in response.json()["action"]

    def test_somebody_elses_identity_does_not_end_in_circles(
        self, local: Browser, another_browser: Browser, settings: Any
    ) -> None:
        another_browser.sign_in()
        settings.SOCIALACCOUNT_LOGIN_ON_GET = True
        for _ in range(3):
            assert local.site.get("/company").status_code == 302
        response = local.site.get("/company")
        assert response.status_code == 403
        assert "No sipgate connection yet" in response.content.decode()


class TestNeedsSignIn:
    def test_one_signs_in_again_and_comes_back(self, signed_in: Browser) -> None:
        SipgateToken.objects.update(state=State.NEEDS_SIGN_IN, reason=Reason.REFUSED)
        response = signed_in.site.get("/company?a=1")
        assert sent_to(response) == (
            "/accounts/sipgate/login/",
            {"process": "connect", "next": "/company?a=1"},
        )
        go_through(signed_in, response)
        assert signed_in.site.get("/company?a=1").status_code == 200
        assert SipgateToken.objects.get().state == State.ACTIVE

    def test_session_that_turns_out_to_be_over(self, signed_in: Browser) -> None:
        signed_in.sandbox.control.kill_session()
        age(SipgateToken.objects.get(), 400)
        assert sent_to(signed_in.site.get("/company"))[0] == "/accounts/sipgate/login/"
        where, query = sent_to(get_async(signed_in, "/company-async"))
        assert (where, query["next"]) == ("/accounts/sipgate/login/", "/company-async")

    def test_program_gets_a_document(self, signed_in: Browser) -> None:
        SipgateToken.objects.update(state=State.NEEDS_SIGN_IN)
        response = signed_in.site.get("/company", headers=JSON)
        assert (response.status_code, response.json()["type"]) == (
            403,
            "urn:sipgate-provider:problem:needs_sign_in",
        )

    def test_ending_inside_the_view_is_a_page(self, signed_in: Browser) -> None:
        signed_in.sandbox.control.kill_session()
        response = signed_in.site.get("/company?a=1")
        assert response.status_code == 403
        page = response.content.decode()
        assert (
            'action="/accounts/sipgate/login/?process=connect&amp;next=%2Fcompany%3Fa%3D1&amp;repair='
            in page
        )


class TestScope:
    def test_one_more_consent_and_back(self, signed_in: Browser) -> None:
        """The whole journey: page, connect page, sipgate, page."""
        response = signed_in.site.get("/sms?to=1&text=2")
        assert sent_to(response) == (
            "/accounts/sipgate/login/",
            {"process": "connect", "next": "/sms?to=1&text=2"},
        )
        page = signed_in.site.get(response.headers["Location"]).content.decode()
        assert "send text messages" in page, "the page says what will be asked for"
        authorize, back = go_through(signed_in, response)
        assert asked_for(authorize) == {"account:read", SMS}
        assert back.headers["Location"] == "/sms?to=1&text=2"
        assert signed_in.site.get("/sms?to=1&text=2").content == b"sent"
        assert (SocialAccount.objects.count(), User.objects.count()) == (1, 1)
        assert set(SipgateToken.objects.get().scopes) == {"account:read", SMS}
        assert signed_in.sandbox.control.state()["POST v2/sessions/sms"] == 1

    @pytest.mark.parametrize("path", SCOPED)
    def test_what_was_granted_before_is_kept(self, signed_in: Browser, path: str) -> None:
        SipgateToken.objects.update(scope="account:read numbers:read")
        authorize, _ = go_through(signed_in, signed_in.site.get(path))
        assert asked_for(authorize) == {"account:read", "numbers:read", SMS}

    def test_consent_without_the_scope_does_not_end_in_circles(
        self, signed_in: Browser, settings: Any
    ) -> None:
        settings.SOCIALACCOUNT_LOGIN_ON_GET = True  # nothing but our guard is in the way then
        signed_in.sandbox.control.fault("scope-less", on="token")
        started = signed_in.site.get(signed_in.site.get("/sms?to=1").headers["Location"])
        back = signed_in.site.get(signed_in.consent(started.headers["Location"]))
        assert back.headers["Location"] == "/sms?to=1"
        response = signed_in.site.get("/sms?to=1")
        page = response.content.decode()
        assert response.status_code == 403
        assert "A permission is missing" in page
        assert SMS in page
        assert signed_in.site.get("/sms?to=1").status_code == 403, "and stays so"
        # the page's button asks for the scope; allowed this time
        authorize, back = press(signed_in, "", page)
        assert SMS in asked_for(authorize)
        assert back.headers["Location"] == "/sms?to=1"
        assert signed_in.site.get("/sms?to=1").content == b"sent"

    def test_one_may_go_back_and_try_again(self, signed_in: Browser) -> None:
        for _ in range(3):
            assert signed_in.site.get("/sms").status_code == 302
        assert signed_in.site.get("/sms").status_code == 403, "but not for ever"

    def test_after_a_denied_consent_one_may_try_again(self, signed_in: Browser) -> None:
        _, answer = go_through(signed_in, signed_in.site.get("/sms"), allow=False)
        assert answer.status_code == 401
        assert signed_in.site.get("/company").status_code == 200, "what there was still works"
        _, back = go_through(signed_in, signed_in.site.get("/sms"))
        assert back.headers["Location"] == "/sms"

    @pytest.mark.parametrize(
        ("referrer", "next_url"),
        [
            (f"http://{HOST}/form?x=1", "/form?x=1"),
            (f"http://{HOST}", "/"),
            ("https://evil.example/form", "/"),
            (f"http://{HOST}//evil.example/form", "/"),
            (f"http://{HOST}/\\evil.example/form", "/"),
            ("javascript:alert(1)", "/"),
            ("", "/"),
        ],
    )
    def test_after_a_posted_form_one_comes_back_to_it(
        self, signed_in: Browser, referrer: str, next_url: str
    ) -> None:
        response = signed_in.site.post("/sms", {"text": "2"}, headers={"referer": referrer})
        assert sent_to(response) == (
            "/accounts/sipgate/login/",
            {"process": "connect", "next": next_url},
        )
        assert "POST v2/sessions/sms" not in signed_in.sandbox.control.state()

    @pytest.mark.parametrize("path", SCOPED)
    def test_program_gets_a_document_whose_action_asks_for_it(
        self, signed_in: Browser, path: str
    ) -> None:
        response = signed_in.site.get(path, headers=JSON)
        assert (response.status_code, response.json()["type"]) == (
            403,
            "urn:sipgate-provider:problem:missing_permission",
        )
        started = signed_in.site.post(response.json()["action"])
        assert asked_for(started.headers["Location"]) == {"account:read", SMS}

    def test_refusal_inside_the_view_names_the_scope_and_asks_for_it(
        self, signed_in: Browser
    ) -> None:
        response = signed_in.site.get("/numbers")
        page = response.content.decode()
        assert (response.status_code, "numbers:read" in page) == (403, True)
        authorize, back = press(signed_in, "", page)
        assert asked_for(authorize) == {"account:read", "numbers:read"}
        assert back.headers["Location"] == "/numbers"
        assert len(signed_in.site.get("/numbers").json()["numbers"]) == 25

    def test_what_is_not_booked_is_not_asked_for(self, signed_in: Browser) -> None:
        signed_in.sandbox.control.fault("forbidden", on="account")
        page = signed_in.site.get("/company").content.decode()
        assert "Not available for this sipgate account" in page
        assert "sipgate/login" not in page


class TestTrouble:
    @pytest.mark.parametrize("path", PLAIN)
    @pytest.mark.parametrize("headers", [{}, JSON])
    def test_error_in_the_view_is_a_problem(
        self, signed_in: Browser, caplog: Any, path: str, headers: dict[str, str]
    ) -> None:
        signed_in.sandbox.control.fault("unknown-error", on="account", times=2)
        response = signed_in.site.get(path, headers=headers)
        assert response.status_code == 503
        assert "sipgate cannot be reached" in response.content.decode()
        found = re.search(
            r'(?:<code>|"reference": ")([2-9A-HJ-NP-Z]{8})', response.content.decode()
        )
        assert found is not None
        assert f"[{found[1]}]: unavailable" in caplog.text
        assert (response.headers["Content-Type"] == "application/problem+json") == bool(headers)

    def test_other_errors_stay_what_they_are(self, signed_in: Browser, monkeypatch: Any) -> None:
        monkeypatch.setattr("sipgate_provider.client.SipgateClient.account", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            signed_in.site.get("/company")


class TestTransactions:
    @pytest.fixture
    def atomic(self) -> Any:
        options = connections["default"].settings_dict
        before, options["ATOMIC_REQUESTS"] = options["ATOMIC_REQUESTS"], True
        connections.settings["default"]["ATOMIC_REQUESTS"] = True
        yield
        options["ATOMIC_REQUESTS"] = connections.settings["default"]["ATOMIC_REQUESTS"] = before

    def test_trouble_rolls_back_what_the_view_wrote(self, signed_in: Browser, atomic: None) -> None:
        assert signed_in.site.post("/write-and-fail").status_code == 502
        assert not User.objects.filter(username="written by the view").exists()

    def test_without_atomic_requests_it_stays(self, signed_in: Browser) -> None:
        assert signed_in.site.post("/write-and-fail").status_code == 502
        assert User.objects.filter(username="written by the view").exists()

    @pytest.mark.parametrize("path", ["/company", "/never-atomic", "/tags"])
    def test_ending_token_is_renewed_before_the_transaction(
        self, signed_in: Browser, atomic: None, path: str
    ) -> None:
        age(SipgateToken.objects.get(), 400)
        response = signed_in.site.get(path)
        assert response.status_code == 200
        assert tokens.load(SocialAccount.objects.get().pk).generation == (
            1 if path == "/tags" else 2
        )
        if path == "/never-atomic":
            assert response.content == b"in a transaction: False"

    def test_async_views_need_a_word_as_ever(self, signed_in: Browser, atomic: None) -> None:
        for path in ("/company-async", "/class/company-async", "/mixin/company-async"):
            with pytest.raises(RuntimeError, match="ATOMIC_REQUESTS with async views"):
                signed_in.site.get(path)


class TestTags:
    def page(self, browser: Browser) -> str:
        response = browser.site.get("/tags")
        assert response.status_code == 200
        return response.content.decode()

    def test_nobody(self, browser: Browser) -> None:
        page = self.page(browser)
        assert "state: none" in page
        assert "usable: no" in page
        assert (
            "url: /accounts/sipgate/login/?process=login&amp;next=%2Fthere%3Fx%3D1%26y%3D2" in page
        )

    def test_not_connected(self, local: Browser) -> None:
        page = self.page(local)
        assert "state: none" in page
        assert "url: /accounts/sipgate/login/?process=connect&amp;next=%2Fthere" in page

    def test_lacking_scope_and_the_button_that_asks_for_it(self, signed_in: Browser) -> None:
        page = self.page(signed_in)
        assert f"state: lacks {SMS}" in page
        assert "uid: 1000000w0 usable: no" in page
        assert 'name="csrfmiddlewaretoken"' in page
        authorize, back = press(signed_in, "", page)
        assert asked_for(authorize) == {"account:read", SMS}
        assert back.headers["Location"] == "/tags"
        page = self.page(signed_in)
        assert "state: ready" in page
        assert "usable: yes" in page

    def test_another_sign_in_does_not_ask_for_what_the_button_would(
        self, signed_in: Browser
    ) -> None:
        self.page(signed_in)
        assert asked_for(signed_in.start(process="connect")) == {"account:read"}

    def test_wish_of_a_button_is_for_one_person(
        self, signed_in: Browser, another_browser: Browser
    ) -> None:
        action = re.search(r'action="([^"]*)"', self.page(signed_in))
        assert action is not None
        started = another_browser.site.post(unescape(action[1]))
        assert asked_for(started.headers["Location"]) == {"account:read"}

    @pytest.mark.parametrize("wish", ["all", "WyIxIiwiYWxsIl0:1vNxyz:abc", "%5B%22all%22%5D"])
    def test_forged_wish_is_not_looked_at(self, browser: Browser, wish: str) -> None:
        assert asked_for(browser.start(query=f"&sipgate_scopes={wish}")) == {"account:read"}

    def test_ended(self, signed_in: Browser) -> None:
        SipgateToken.objects.update(state=State.NEEDS_SIGN_IN)
        assert "state: ended" in self.page(signed_in)

    def test_connections_are_read_once(
        self, signed_in: Browser, django_assert_num_queries: Any
    ) -> None:
        self.page(signed_in)
        with django_assert_num_queries(3):  # session, user, connections
            self.page(signed_in)
