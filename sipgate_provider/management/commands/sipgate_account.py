"""``manage.py sipgate_account USER``: what sipgate's own example shows: account, refresh, account again."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q
from django.utils import timezone, translation

from sipgate_provider import conf, errors, tokens, values
from sipgate_provider.connections import connections_of, demonstrate, fetch
from sipgate_provider.management.output import as_json, command_error
from sipgate_provider.models import Reason

ACTOR = "sipgate_account"


class Command(BaseCommand):
    help = (
        "Fetch sipgate's account of a user, refresh the token, and fetch the account again, as sipgate's own Python "
        "example does. Tokens are never shown."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "user",
            metavar="USER",
            help="User name, e-mail address, or sipgate id such as 1234567w0.",
        )
        parser.add_argument(
            "--no-refresh",
            action="store_true",
            help="Fetch the account once; refresh the token only if it has expired.",
        )
        parser.add_argument(
            "--json", action="store_true", help="Write the answer as one line of JSON."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        connections = find(options["user"])
        try:
            answers = [
                answer(connection, refresh=not options["no_refresh"]) for connection in connections
            ]
        except errors.SipgateError as error:
            with translation.override("en"):
                raise command_error(sentence(error, options["user"])) from None
        if options["json"]:
            self.stdout.write(as_json({"connections": answers}))
        else:
            self.stdout.write("\n\n".join(table(shown) for shown in answers))


def find(name: str) -> list[SocialAccount]:
    """Return the connections of the user with that name or address, or the one with that sipgate id.

    Raises:
        CommandError: no user is found, or more than one, or the user has no connection.
    """
    users = _users(name)
    if len(users) > 1:
        raise CommandError(
            f"{len(users)} users have the address {name}: give the user name or the sipgate id."
        )
    if not users:
        found = list(
            SocialAccount.objects.filter(provider=conf.PROVIDER_ID, uid=name).select_related("user")
        )
        if not found:
            raise CommandError(
                f"There is no user with the name, e-mail address or sipgate id {name}."
            )
        return found
    connections = connections_of(users[0])
    if not connections:
        raise CommandError(
            f"{name} has no sipgate connection: they have to sign in with sipgate or connect it first."
        )
    return connections


def _users(name: str) -> list[Any]:
    model = get_user_model()
    by_name = list(model._default_manager.filter(**{model.USERNAME_FIELD: name}))
    if by_name or "@" not in name:
        return by_name
    addresses = EmailAddress.objects.filter(email__iexact=name).values("user")
    field = model.get_email_field_name()
    known = {described.name for described in model._meta.get_fields()}
    wanted = Q(pk__in=addresses) | (Q(**{f"{field}__iexact": name}) if field in known else Q())
    return list(model._default_manager.filter(wanted))


def answer(connection: SocialAccount, *, refresh: bool) -> dict[str, Any]:
    """Return what is shown of one connection. Raises as ``demonstrate`` and ``fetch``."""
    if not refresh:
        fetched = fetch(connection)
        return {
            **_about(connection),
            "account": dict(fetched.account.raw) if fetched.account else {},
        }
    shown = demonstrate(connection, by=ACTOR)
    return {
        **_about(connection),
        "account": dict(shown.account_before.raw),
        "refreshed": {"from": shown.before, "to": shown.after},
        "account_after_refresh": dict(shown.account_after.raw),
        "milliseconds": shown.duration_ms,
    }


def _about(connection: SocialAccount) -> dict[str, Any]:
    row = tokens.load(connection.pk)
    user = connection.user.get_username()
    if row is None:
        return {"user": user, "uid": connection.uid}
    return {
        "user": user,
        "uid": connection.uid,
        "state": row.state,
        "scope": list(row.scopes),
        "generation": row.generation,
        "access_token_expires": row.expires_at,
        "connection_ends": row.refresh_expires_at,
    }


def table(answer: dict[str, Any]) -> str:
    """Return one connection as aligned lines."""
    account = values.Account.parse(answer["account"])
    rows = [
        ("user", answer["user"]),
        ("sipgate id", answer["uid"]),
        ("company", account.company or "–"),
        ("product", account.main_product_type or "–"),
        ("verified", {True: "yes", False: "no", None: "–"}[account.verified]),
        ("history is kept", account.history_lifetime or "–"),
        ("scope", " ".join(answer.get("scope", ())) or "–"),
    ]
    refreshed = answer.get("refreshed")
    if refreshed:
        same = answer["account"] == answer["account_after_refresh"]
        rows += [
            (
                "token refreshed",
                f"generation {refreshed['from']} → {refreshed['to']}, in {answer['milliseconds']} ms",
            ),
            ("account again", "the same" if same else "changed meanwhile"),
        ]
    rows += [
        (name, _when(answer.get(key)))
        for name, key in (
            ("access token expires", "access_token_expires"),
            ("connection ends", "connection_ends"),
        )
    ]
    width = max(len(name) for name, _value in rows) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows)


def _when(moment: Any) -> str:
    return timezone.localtime(moment).strftime("%Y-%m-%d %H:%M:%S") if moment else "–"


def sentence(error: errors.SipgateError, name: str) -> str:
    """Return what went wrong and what to do, in one sentence."""
    if isinstance(error, errors.NeedsSignIn):
        reason = (
            Reason(error.reason).label
            if error.reason in Reason.values and error.reason
            else "sipgate rejects its token"
        )
        return f"{name} has to sign in to sipgate again: {reason}."
    if isinstance(error, errors.NotConnected):
        return f"{name} has no sipgate token: they have to sign in with sipgate once."
    if isinstance(error, errors.MissingPermission):
        return f"{name} did not allow this site to read the account: they have to sign in again and allow account:read."
    if isinstance(error, errors.Misconfigured):
        return f"{error.message.rstrip('.')}; manage.py sipgate_doctor tells more."
    return f"{error.message.rstrip('.')}; try again later, or see manage.py sipgate_doctor."
