"""Pre-hijacking: an address that nobody has verified gets neither a password nor a mail."""

from __future__ import annotations

import re

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.core import mail
from django.test import Client

from sipgate_provider import background
from sipgate_provider.models import SipgateToken
from sipgate_provider.ops import notices
from tests.flows.conftest import AskFor
from tests.journey import HOST

User = get_user_model()
VICTIM = "rosa@rosenduft.example"
PASSWORD, OTHER_PASSWORD = "correct horse battery", "another horse battery"


def test_the_attack_with_a_sipgate_user_of_that_address(browser, another_browser):
    """1. A stranger gives a sipgate user of his the victim's address and signs in. 2. The victim,
    who knows of nothing, asks for a new password. 3. She uses the account. 4. The stranger's
    sipgate opens it as well.
    """
    browser.sign_in()
    assert User.objects.get().email == ""
    assert not EmailAddress.objects.exists()
    victim = reset_password(VICTIM)
    assert not is_signed_in(victim)
    assert not [message for message in mail.outbox if "password/reset/key" in message.body]


def test_the_attack_with_a_local_user_of_that_address(browser):
    form = {"username": "stranger", "email": VICTIM, "password1": PASSWORD, "password2": PASSWORD}
    assert browser.site.post("/accounts/signup/", form).status_code == 302
    browser.sign_in(process="connect")
    assert SocialAccount.objects.get().user.email == VICTIM
    mail.outbox.clear()
    assert not is_signed_in(reset_password(VICTIM))
    assert not [message for message in mail.outbox if "password/reset/key" in message.body]


def test_a_verified_address_resets(browser):
    user = User.objects.create_user("rosa", email=VICTIM, password=PASSWORD)
    EmailAddress.objects.create(user=user, email=VICTIM, verified=True, primary=True)
    assert is_signed_in(reset_password(VICTIM.upper()))


def test_the_address_that_sipgate_tells_is_suggested(browser, settings):
    settings.SOCIALACCOUNT_AUTO_SIGNUP = False
    page = browser.site.get(browser.sign_in().headers["Location"]).content.decode()
    assert f'value="{VICTIM}"' in page


def test_what_the_site_vouches_for_is_taken(browser, ask_for):
    ask_for("account:read", "users:read", VERIFIED_EMAIL=["rosenduft.example"])
    browser.sign_in()
    assert User.objects.get().email == VICTIM
    assert EmailAddress.objects.get().verified


@pytest.mark.parametrize("verified", [False, True])
def test_only_a_verified_address_is_written_to(browser, verified):
    browser.sign_in()
    user = User.objects.get()
    User.objects.update(email=VICTIM)
    EmailAddress.objects.create(user=user, email=VICTIM, verified=verified, primary=True)
    SipgateToken.objects.update(state="needs_sign_in", notified_at=None)
    assert notices.tell_user(SocialAccount.objects.get().pk) is verified
    assert len(mail.outbox) == verified


@pytest.fixture(autouse=True)
def _with_an_address(ask_for: AskFor) -> None:
    ask_for("account:read", "users:read")


def reset_password(address: str) -> Client:
    """Ask for a new password as the owner of ``address``, and sign in with it if a mail came."""
    client = Client(headers={"host": HOST})
    assert client.post("/accounts/password/reset/", {"email": address}).status_code == 302
    assert background.errands.wait_idle(10)
    mails = "".join(message.body for message in mail.outbox)
    links = re.findall(r"http://localhost:8080(/accounts/password/reset/key/\S+)", mails)
    if links:
        form = client.get(links[0], follow=True).redirect_chain[-1][0]
        client.post(form, {"password1": OTHER_PASSWORD, "password2": OTHER_PASSWORD})
    client.post("/accounts/login/", {"login": address, "password": OTHER_PASSWORD})
    return client


def is_signed_in(client: Client) -> bool:
    return client.get("/account.json").status_code != 401
