"""Writes the people and the client into the sandbox's database at start."""

from __future__ import annotations

from allauth.account.models import EmailAddress
from allauth.idp.oidc.models import Client
from django.conf import settings
from django.contrib.auth import get_user_model

from .people import PEOPLE
from .scopes import SCOPES


def seed() -> None:
    """Bring people, their addresses and the client to what the code says. Safe to repeat."""
    for person in PEOPLE:
        user, _created = get_user_model().objects.update_or_create(
            username=person.uid,
            defaults={"first_name": person.firstname, "last_name": person.lastname, "email": person.email},
        )
        if person.email:
            EmailAddress.objects.update_or_create(
                user=user, email=person.email, defaults={"verified": person.email_verified, "primary": True}
            )
    client, _created = Client.objects.get_or_create(pk=settings.SANDBOX_CLIENT_ID, defaults={"name": "Your site"})
    client.set_secret(settings.SANDBOX_CLIENT_SECRET)
    client.set_redirect_uris(settings.SANDBOX_REDIRECT_URIS)
    client.set_scopes(list(SCOPES))
    client.default_scopes = "account:read"
    client.grant_types = "authorization_code\nrefresh_token"
    client.save()
