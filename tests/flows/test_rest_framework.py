"""REST framework authenticates in its own way; then our permission and handler count."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from allauth.socialaccount.models import SocialApp
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import include, path
from rest_framework import serializers
from rest_framework.authentication import (
    BaseAuthentication,
    BasicAuthentication,
    SessionAuthentication,
)
from rest_framework.decorators import api_view, authentication_classes, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView

from sipgate_provider.decorators import sipgate_required
from sipgate_provider.models import SipgateToken, State
from sipgate_provider.rest_framework import exception_handler, sipgate_connection
from sipgate_provider.sign_in.oauth import SipgateOAuth2Adapter
from tests.conftest import make_stale
from tests.journey import HOST, Browser, asked_for
from tests.sample_site import SMS

pytestmark = pytest.mark.urls(__name__)

User = get_user_model()
WORDS = "correct horse battery"
BEARER = {"authorization": "Bearer rosa"}


def test_whoever_it_authenticates_is_admitted(program):
    basic = base64.b64encode(f"rosa:{WORDS}".encode()).decode()
    for headers in (BEARER, {"authorization": f"Basic {basic}"}):
        answer = program.get("/company", headers=headers)
        assert answer.json() == {"company": "Rosenduft Gartenbau GmbH"}, headers
    answer = program.get("/decorated", headers=BEARER)
    assert answer.json() == {"company": "Rosenduft Gartenbau GmbH"}


def test_nobody_is_not(program):
    for headers in ({}, {"authorization": "Bearer nobody"}):
        assert program.get("/company", headers=headers).status_code == 401
        assert program.get("/sms", headers=headers).status_code == 401


def test_what_is_missing_is_told_and_asked_for(program, browser):
    document = is_problem(program.get("/sms", headers=BEARER), 403, "missing_permission")
    begun = browser.site.post(document["action"]).headers["Location"]
    assert asked_for(begun) == {"account:read", SMS}
    SipgateToken.objects.update(state=State.NEEDS_SIGN_IN)
    is_problem(program.get("/company", headers=BEARER), 403, "needs_sign_in")
    User.objects.create_user("paula")
    paula = {"authorization": "Bearer paula"}
    is_problem(program.get("/company", headers=paula), 403, "not_connected")


def test_an_ending_token_is_refreshed_before_the_view(program, browser):
    make_stale()
    assert program.get("/company", headers=BEARER).status_code == 200
    assert browser.asked("refresh") == 1
    make_stale()
    browser.sandbox.control.kill_session()
    is_problem(program.get("/company", headers=BEARER), 403, "needs_sign_in")


def test_errors_in_the_view_are_problems(program, browser):
    browser.sandbox.control.fault("unknown-error", on="account", times=None)
    is_problem(program.get("/handled", headers=BEARER), 503, "unavailable")
    answer = program.post("/handled", headers=BEARER)
    assert answer.status_code == 405, "other errors are REST framework's"


@pytest.mark.parametrize("way", ["code", "access_token"])
def test_a_code_or_token_of_a_browser_is_not_taken(rf, way):
    """dj-rest-auth's ``SocialLoginView`` hands both to allauth's adapter, in a serializer."""

    class SocialLogin(serializers.Serializer[Any]):
        def validate(self, attrs):
            adapter = SipgateOAuth2Adapter(rf.post("/"))
            if way == "code":
                adapter.get_client(rf.post("/"), SocialApp()).get_access_token("x")
            return adapter.parse_token({"access_token": "x"})

    login = SocialLogin(data={})
    assert not login.is_valid(), "REST framework answers 400"
    assert "allauth's headless API" in str(login.errors["non_field_errors"])


@pytest.fixture
def program(browser: Browser) -> Client:
    """A program of Rosa's, who has a password here and a sipgate connection."""
    browser.log_in(User.objects.create_user("rosa", password=WORDS))
    browser.sign_in(process="connect")
    return Client(headers={"host": HOST})


def is_problem(answer: Any, status: int, kind: str) -> Any:
    document = answer.json()
    found = (answer.status_code, document["type"].rpartition(":")[2])
    assert found == (status, kind), document
    return document


class ByToken(BaseAuthentication):
    def authenticate(self, request: Any) -> Any:
        name = request.headers.get("Authorization", "").removeprefix("Bearer ")
        user = User.objects.filter(username=name).first()
        return (user, None) if user else None

    def authenticate_header(self, request: Any) -> str:
        return "Bearer"


class Company(APIView):
    authentication_classes = [ByToken, BasicAuthentication, SessionAuthentication]
    permission_classes = [IsAuthenticated, sipgate_connection("account:read")]

    def get(self, request: Any) -> Response:
        return Response({"company": request.sipgate.account().company})


class Handled(Company):
    def get_exception_handler(self) -> Any:
        return exception_handler


@api_view(["GET"])
@authentication_classes([ByToken])
@permission_classes([sipgate_connection(SMS)])
def sms(request: Any) -> Response:
    return Response("may send")


@api_view(["GET"])
@authentication_classes([ByToken])
@sipgate_required
def decorated(request: Any) -> Response:
    return Response({"company": request.sipgate.account().company})


urlpatterns = [
    path("company", Company.as_view()),
    path("handled", Handled.as_view()),
    path("sms", sms),
    path("decorated", decorated),
    path("", include("sipgate_project.urls")),
]
