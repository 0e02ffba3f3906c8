"""What the site answers to probes, caches and odd methods."""

from __future__ import annotations

import re
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.test import Client
from django.urls import path

from sipgate_project import urls

pytestmark = pytest.mark.django_db

HOST = "localhost:8080"


@pytest.mark.parametrize(
    "path", ["/account", "/accounts/3rdparty/", "/accounts/email/", "/accounts/logout/"]
)
def test_personal_page_is_kept_by_nobody(client, path):
    client.force_login(get_user_model().objects.create(username="erika"))
    response = client.get(path, headers={"host": HOST})
    assert response.status_code == 200
    assert {"private", "no-store"} <= set(response.headers["Cache-Control"].split(", "))


@pytest.mark.parametrize("method", ["head", "options"])
def test_only_the_confirmed_form_begins_a_sign_in(method):
    client = Client(enforce_csrf_checks=True, headers={"host": HOST})
    assert getattr(client, method)("/accounts/sipgate/login/").status_code == 405
    assert not Session.objects.exists()


def test_wrong_passwords_are_counted_by_the_address_that_the_proxy_saw(settings):
    """A visitor who invents another one for each try is stopped, and nobody else."""
    cache.clear()
    settings.ALLAUTH_TRUSTED_PROXY_COUNT = 1  # as BEHIND_PROXY sets it
    get_user_model().objects.create_user("erika", password="correct")

    def log_in(name, password, addresses):
        form, headers = {"login": name, "password": password}, {"host": HOST}
        headers["x-forwarded-for"] = addresses
        return Client().post("/accounts/login/", form, headers=headers)

    for number in range(12):
        told = log_in(f"somebody{number}", "wrong", f"6.6.6.{number}, 203.0.113.9")
    assert "Too many failed login attempts" in told.content.decode()
    assert log_in("erika", "correct", "203.0.113.10").status_code == 302


@pytest.mark.parametrize(
    ("uri", "host", "is_own"),
    [
        ("https://crm.example.org:443/oauth", "crm.example.org", True),
        ("https://crm.example.org/oauth", "CRM.example.org:443", True),
        ("http://crm.example.org:80/oauth", "crm.example.org", True),
        ("http://localhost:8080/oauth", "localhost:8080", True),
        ("http://localhost:8080/oauth", "localhost", False),
        ("http://[::1]/oauth", "[::1]:80", True),
        ("https://crm.example.org/oauth", "crm.example.org:80", False),
    ],
)
@pytest.mark.parametrize("path", ["/", "/accounts/sipgate/login/"])
def test_written_out_port_of_the_scheme_sends_nobody_in_circles(settings, path, uri, host, is_own):
    settings.SIPGATE_REDIRECT_URI, settings.ALLOWED_HOSTS = uri, ["*"]
    secure = {"secure": uri.startswith("https")}
    assert Client().get(path, headers={"host": host}, **secure).status_code == (
        200 if is_own else 302
    )


@pytest.mark.django_db(transaction=True)
def test_links_in_mails_lead_to_this_site_whatever_host_a_form_was_posted_to(settings, mailoutbox):
    settings.ALLOWED_HOSTS = ["*"]
    user = get_user_model().objects.create_user("erika", "erika@example.org", "old")
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
    form = {"email": user.email}
    answer = Client().post("/accounts/password/reset/", form, headers={"host": "evil.test"})
    assert (answer.status_code, mailoutbox) == (302, [])
    assert answer.headers["Location"] == f"http://{HOST}/accounts/password/reset/"
    Client().post("/accounts/password/reset/", form, headers={"host": HOST})
    [mail] = mailoutbox
    assert f"http://{HOST}/accounts/password/reset/key/" in mail.body
    assert "evil" not in mail.body


@pytest.mark.parametrize("path", ["/oauth", "/oauth/"])
@pytest.mark.parametrize("method", ["get", "post", "put", "delete"])
def test_no_page_repeats_the_code_of_a_callback(path, method):
    client = Client()
    client.force_login(get_user_model().objects.create(username="erika"))
    answer = getattr(client, method)(
        f"{path}?code=unmistakable&state=unmistakable", headers={"host": HOST}
    )
    assert answer.status_code in {401, 404, 405}
    assert "unmistakable" not in answer.content.decode()


def fail(request: Any) -> None:
    raise ZeroDivisionError("with a secret in it")


urlpatterns = [path("fail", fail)]
handler500 = urls.handler500


def test_an_error_of_our_own_has_a_reference_of_the_log(settings, caplog):
    settings.ROOT_URLCONF = __name__
    response = Client(raise_request_exception=False).get("/fail", headers={"host": HOST})
    (reference,) = re.findall(r"<code>(\w{8})</code>", response.content.decode())
    assert response.status_code == 500
    assert f"A page failed [{reference}]: GET /fail, ZeroDivisionError" in caplog.messages
