"""A site below a path: the callback is found, whoever tells Django the path."""

from __future__ import annotations

import types
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.test import RequestFactory
from django.urls import clear_script_prefix

from sipgate_project import urls as site
from sipgate_provider import urls
from tests.journey import HOST

pytestmark = pytest.mark.django_db(transaction=True)

CALLBACK = "/oauth?error=access_denied&state=x"


@pytest.mark.parametrize("forced", [None, "/crm"], ids=["SCRIPT_NAME", "FORCE_SCRIPT_NAME"])
def test_the_callback_is_found(settings, forced):
    settings.FORCE_SCRIPT_NAME = forced
    environment = RequestFactory(headers={"host": HOST}).get(CALLBACK).environ
    if not forced:
        environment["SCRIPT_NAME"] = "/crm"
    status = []
    body = b"".join(WSGIHandler()(environment, lambda line, _headers: status.append(line)))
    assert status == ["401 Unauthorized"]
    assert b"The sign-in was cancelled" in body


def test_sipgate_is_told_the_whole_address(client):
    begun = client.post("/accounts/sipgate/login/", headers={"host": HOST})
    query = parse_qs(urlsplit(begun.headers["Location"]).query)
    assert query["redirect_uri"] == [f"http://{HOST}/crm/oauth"]


@pytest.fixture(autouse=True)
def _below(settings: Any) -> Any:
    settings.SIPGATE_REDIRECT_URI = f"http://{HOST}/crm/oauth"
    module: Any = types.ModuleType("of_a_site_below_a_path")
    others = [one for one in site.urlpatterns if getattr(one, "name", "") != "sipgate_callback"]
    module.urlpatterns = [*urls.callback_urlpatterns(), *others]
    settings.ROOT_URLCONF = module
    yield
    clear_script_prefix()
