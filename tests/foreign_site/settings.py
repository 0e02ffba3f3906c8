"""The smallest settings with which "Sign in with sipgate" works."""

from without_sipgate import *

DEBUG = False
ORIGIN = os.environ["FOREIGN_ORIGIN"]
SANDBOX = os.environ["FOREIGN_SANDBOX"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = [*INSTALLED_APPS, "sipgate_provider"]
LOGIN_REDIRECT_URL = "/company"

SOCIALACCOUNT_ADAPTER = "sipgate_provider.adapter.SipgateSocialAccountAdapter"
SOCIALACCOUNT_PROVIDERS = {
    "sipgate": {
        "APPS": [{"client_id": "1000000-1-sandbox:third-party", "secret": "sandbox-secret"}]
    }
}
SIPGATE_REDIRECT_URI = f"{ORIGIN}/oauth"
SIPGATE_TOKEN_KEYS = [os.environ["FOREIGN_TOKEN_KEY"]]

# Without these three it is sipgate itself.
SIPGATE_AUTH_URL = f"{SANDBOX}/auth/realms/third-party/protocol/openid-connect/auth"
SIPGATE_TOKEN_URL = f"{SANDBOX}/auth/realms/third-party/protocol/openid-connect/token"
SIPGATE_API_URL = f"{SANDBOX}/v2"
