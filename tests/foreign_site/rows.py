"""What an operator of the awkward site has clicked together before anybody comes."""

from urllib.parse import urlsplit

from allauth.account.signals import user_signed_up
from allauth.socialaccount.models import SocialApp
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sites.models import Site
from django.core.exceptions import PermissionDenied


def make() -> None:
    site = Site.objects.get()
    Site.objects.update(domain=urlsplit(settings.ORIGIN).netloc)
    client = SocialApp.objects.create(
        provider="sipgate",
        name="sipgate",
        client_id="1000000-1-sandbox:third-party",
        secret="sandbox-secret",
    )
    client.sites.add(site)
    get_user_model().objects.create_superuser("boss@b.example", "correct horse battery")
    user_signed_up.connect(_reject_competitors)


def _reject_competitors(user, **_more):
    if user.email.endswith("@schraube.example"):
        raise PermissionDenied
