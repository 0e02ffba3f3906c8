"""The admin. It answers an operator's questions without decrypting a secret.

Lists and details decrypt nothing; ``sealed`` is not even fetched. Rows cannot be added, edited or deleted: an operator
uses actions, each with a page that says what will happen (``actions``), carried out by ``ops.operations``.

``tokens`` and ``history`` are the two long lists, made for 100,000 connections. ``rest`` has the short ones.
``connections`` and ``clients`` are allauth's own lists, with a link to the token and without a way to read a secret.
"""

from __future__ import annotations

from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django.contrib import admin

from sipgate_provider.models import (
    ClientPause,
    LastKnownAccount,
    Revocation,
    SipgateToken,
    TokenEvent,
)

from .clients import ClientAdmin
from .connections import ConnectionAdmin
from .history import TokenEventAdmin
from .rest import ClientPauseAdmin, LastKnownAccountAdmin, RevocationAdmin
from .tokens import SipgateTokenAdmin

# There is deliberately no check whether these are registered. If INSTALLED_APPS has the wrong order, this fails; with a
# check, allauth's page with tokens in clear text would stay reachable.
admin.site.unregister(SocialToken)
admin.site.unregister(SocialApp)
admin.site.unregister(SocialAccount)

admin.site.register(SocialApp, ClientAdmin)
admin.site.register(SocialAccount, ConnectionAdmin)
admin.site.register(SipgateToken, SipgateTokenAdmin)
admin.site.register(TokenEvent, TokenEventAdmin)
admin.site.register(LastKnownAccount, LastKnownAccountAdmin)
admin.site.register(Revocation, RevocationAdmin)
admin.site.register(ClientPause, ClientPauseAdmin)
