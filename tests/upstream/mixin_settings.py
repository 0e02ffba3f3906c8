"""Settings for allauth's provider tests: upstream's own, cut down to what the provider needs."""

from tests.projects.regular.settings import *  # noqa: F403  # from allauth's source distribution

INSTALLED_APPS = (
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.sites",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.admin",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "sipgate_provider",
)
ROOT_URLCONF = "upstream_urls"
SOCIALACCOUNT_PROVIDERS: dict[str, object] = {}
SOCIALACCOUNT_ADAPTER = "sipgate_provider.adapter.SipgateSocialAccountAdapter"
ACCOUNT_ADAPTER = "allauth.account.adapter.DefaultAccountAdapter"
ACCOUNT_LOGIN_BY_CODE_ENABLED = False
SIPGATE_TOKEN_KEYS = ["dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3RzLW9ubHk="]
SIPGATE_REDIRECT_URI = ""
