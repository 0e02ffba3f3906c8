"""The tests' settings with a user model of a site's own."""

from tests.settings import *  # noqa: F403  # that is what it is for

INSTALLED_APPS = [*INSTALLED_APPS, "tests.custom_user"]  # noqa: F405  # from the tests' settings
AUTH_USER_MODEL = "custom_user.Person"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ROOT_URLCONF = "tests.sample_site"
