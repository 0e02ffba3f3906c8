"""The deployed site with Sentry, told to report everything, whose envelopes go into a file instead of to a server.

``SIPGATE_WATCHED`` is a folder: ``envelopes`` takes what Sentry would send, ``secrets`` what must not stand in it.
``SIPGATE_FAULT`` names a fault of our own: ``bug`` fails in the callback, ``interrupted`` while an answer is awaited.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import sentry_sdk
from django.core.wsgi import get_wsgi_application
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

FOLDER = Path(os.environ["SIPGATE_WATCHED"])


class IntoFile(Transport):
    def capture_envelope(self, envelope: Envelope) -> None:
        with (FOLDER / "envelopes").open("ab") as file:
            file.write(envelope.serialize() + b"\n")


sentry_sdk.init(
    dsn="http://key@localhost/1",
    transport=IntoFile,
    send_default_pii=True,
    include_local_variables=True,
    attach_stacktrace=True,
    max_request_body_size="always",
    traces_sample_rate=1.0,
    max_value_length=100_000,
)
application = get_wsgi_application()

from sipgate_provider.remote import http, oauth  # noqa: E402  # after the set-up
from sipgate_provider.sign_in import views  # noqa: E402  # after the set-up


class Interrupted(Exception):
    """As Celery's time limit: no error of the network."""


def learn(**secrets: str | None) -> None:
    with (FOLDER / "secrets").open("a") as file:
        file.write(
            "".join(json.dumps([kind, value]) + "\n" for kind, value in secrets.items() if value)
        )


real_parse, real_exchange = oauth.Grant.parse.__func__, oauth.exchange_code  # type: ignore[attr-defined]  # of a classmethod


def parse(cls: Any, data: Any, **options: Any) -> Any:
    grant = real_parse(cls, data, **options)
    learn(access=grant.access_token, refresh=grant.refresh_token)
    return grant


def exchange(client: Any, *, code: str, code_verifier: str | None, **options: Any) -> Any:
    learn(code=code, verifier=code_verifier, client=client.client_secret)
    return real_exchange(client, code=code, code_verifier=code_verifier, **options)


oauth.Grant.parse = classmethod(parse)  # type: ignore[method-assign,assignment]  # watched
oauth.exchange_code = exchange  # type: ignore[assignment]  # watched


def fail(*_args: Any, **_kwargs: Any) -> Any:
    raise RuntimeError("a bug")


def interrupt(*_args: Any, **_kwargs: Any) -> Any:
    raise Interrupted("time is over")


real_response = http._Stamped.getresponse
if os.environ.get("SIPGATE_FAULT") == "bug":
    views.complete_social_login = fail
if os.environ.get("SIPGATE_FAULT") == "interrupted":
    http._Stamped.getresponse = interrupt  # type: ignore[method-assign]  # the fault
