"""sipgate's addresses, and the sandbox's own."""

from __future__ import annotations

from django.conf import settings
from django.urls import path

from . import authorization, orders, pages, rest_api, telephony, token_endpoint
from .rest_api import methods, of_user

OIDC = f"{settings.SANDBOX_REALM}/protocol/openid-connect"

urlpatterns = [
    path("", pages.start),
    path("_sandbox/<str:name>", orders.order),
    path(f"{OIDC}/auth", authorization.authorize),
    path(f"{OIDC}/token", token_endpoint.token),
    path(f"{OIDC}/token/introspect", token_endpoint.introspect),
    path(f"{OIDC}/revoke", token_endpoint.revoke),
    path(f"{OIDC}/logout", authorization.logout),
    path(f"{OIDC}/logout/confirm", authorization.confirm_logout, name="confirm_logout"),
    path(f"{OIDC}/userinfo", rest_api.oidc_userinfo),
    path(f"{OIDC}/certs", authorization.keys),
    path(f"{settings.SANDBOX_REALM}/.well-known/openid-configuration", authorization.configuration),
    path("v2/account", methods(GET=rest_api.account)),
    path("v2/authorization/userinfo", methods(GET=rest_api.userinfo)),
    path("v2/users", methods(GET=rest_api.users)),
    path("v2/users/<str:user_id>", methods(GET=rest_api.user)),
    path("v2/balance", methods(GET=rest_api.balance)),
    path("v2/numbers", methods(GET=rest_api.numbers)),
    path("v2/history", methods(GET=rest_api.history)),
    path("v2/history/<str:entry_id>", methods(GET=rest_api.entry, PUT=rest_api.change_entry)),
    path("v2/documents/<str:name>", methods(GET=rest_api.document)),
    path("v2/sessions/calls", methods(POST=rest_api.click_to_dial)),
    path("v2/sessions/sms", methods(POST=rest_api.send_sms)),
    path("v2/sessions/fax", methods(POST=rest_api.send_fax)),
    path("v2/calls", methods(POST=rest_api.call)),
    path("v2/contacts", methods(GET=rest_api.contacts, POST=rest_api.new_contact)),
    path("v2/contacts/<str:contact_id>", methods(DELETE=rest_api.delete_contact)),
    path("v2/<str:user_id>/devices", methods(GET=of_user("devices:read", telephony.devices))),
    path("v2/<str:user_id>/numbers", methods(GET=of_user("numbers:read", telephony.numbers))),
    path("v2/<str:user_id>/sms", methods(GET=of_user("sms:read", telephony.sms_extensions))),
    path("v2/<str:user_id>/faxlines", methods(GET=of_user("faxlines:read", telephony.faxlines))),
    path("<path:path>", rest_api.nothing),
]
