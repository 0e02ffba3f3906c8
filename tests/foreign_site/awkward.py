"""The settings that get in a guest's way, all at once.

Users of its own model, kept with everything about them in a second database; the client in a row of
that database, for one of Django's sites; a login required for every page; the admin; headless
beside allauth's pages; the callback where allauth puts it.
"""

from settings import *

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.staticfiles",
    "django.contrib.sites",
    *INSTALLED_APPS,
    "allauth.headless",
    "people",
]
STATIC_URL = "static/"
ROOT_URLCONF = "urls_awkward"
MIDDLEWARE += ["django.contrib.auth.middleware.LoginRequiredMiddleware"]
LOGIN_URL = "account_login"

DATABASES["archive"] = {**DATABASES["default"], "NAME": BASE_DIR / "archive.sqlite3"}
DATABASE_ROUTERS = ["routers.PeopleInTheArchive"]

AUTH_USER_MODEL = "people.Person"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"

SOCIALACCOUNT_PROVIDERS = {"sipgate": {"VERIFIED_EMAIL": True}}
SIPGATE_SCOPE = ["account:read", "users:read"]
del SIPGATE_REDIRECT_URI

HEADLESS_CLIENTS = ["browser"]
HEADLESS_FRONTEND_URLS = {
    "account_confirm_email": f"{ORIGIN}/app/verify/{{key}}",
    "account_reset_password": f"{ORIGIN}/app/reset",
    "account_reset_password_from_key": f"{ORIGIN}/app/reset/{{key}}",
    "account_signup": f"{ORIGIN}/app/signup",
    "socialaccount_login_error": f"{ORIGIN}/app/login-error",
}
