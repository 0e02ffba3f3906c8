"""What the site answers to probes, caches and odd methods."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.test import Client

pytestmark = pytest.mark.django_db

HOST = "localhost:8080"


@pytest.mark.parametrize("path", ["/", "/healthz"])
def test_probe_may_ask_for_the_head_only(client: Client, path: str) -> None:
    assert client.head(path, headers={"host": HOST}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/account", "/accounts/3rdparty/", "/accounts/email/", "/accounts/logout/"])
def test_personal_page_is_kept_by_nobody(client: Client, path: str) -> None:
    client.force_login(get_user_model().objects.create(username="erika"))
    response = client.get(path, headers={"host": HOST})
    assert response.status_code == 200
    assert {"private", "no-store"} <= set(response.headers["Cache-Control"].split(", "))


@pytest.mark.parametrize("method", ["head", "options"])
def test_only_the_confirmed_form_begins_a_sign_in(method: str) -> None:
    client = Client(enforce_csrf_checks=True, headers={"host": HOST})
    assert getattr(client, method)("/accounts/sipgate/login/").status_code == 405
    assert not Session.objects.exists()
