"""``sipgate_account`` does what sipgate's own example does, for any user."""

from __future__ import annotations

import io

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from sipgate_provider import tokens
from sipgate_provider.models import Reason, State

pytestmark = pytest.mark.django_db(transaction=True)


def test_account_refresh_account(connect, rotator):
    connection = connect()
    old = tokens.token(connection).value
    text = shown("person0")
    assert (text.count("Strict GmbH"), text.count("Refreshed.")) == (2, 1)
    assert (rotator.counts()["refresh"], rotator.counts()["api"]) == (1, 2)
    for secret in (old, tokens.token(connection).value):
        assert str(secret) not in text


def test_a_user_is_found_by_name_address_and_sipgate_id(connect):
    connection = connect()
    connect()
    get_user_model().objects.filter(pk=connection.user_id).update(email="rosa@sipgate.example")
    EmailAddress.objects.create(user=connection.user, email="second@sipgate.example", verified=True)
    for name in ("person0", "Rosa@sipgate.example", "SECOND@sipgate.example", connection.uid):
        assert shown(name).count("Refreshed.") == 1, name


def test_trouble_is_one_sentence(connect, rotator):
    with pytest.raises(CommandError, match="No sipgate connection belongs"):
        shown("nobody")
    connect(state=State.NEEDS_SIGN_IN, reason=Reason.EXPIRED_IDLE, age=400)
    with pytest.raises(CommandError, match=r"^person0: .* needs a new sign-in; see manage.py"):
        shown("person0")
    connect()
    rotator.set(fault="503", times=1)
    with pytest.raises(CommandError, match="HTTP 503"):
        shown("person1")


def shown(name: str) -> str:
    out = io.StringIO()
    call_command("sipgate_account", name, stdout=out)
    return out.getvalue()
