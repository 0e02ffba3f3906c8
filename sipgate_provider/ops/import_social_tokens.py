"""Moves sipgate's tokens from allauth's clear text table into sealed rows, for a site that kept them there.

For each connection, one transaction seals the pair, checks that it opens, and removes the clear text. Nothing that is
sealed already is overwritten, and the next run goes on after an interruption. No notice and no signal is sent, since
nobody has signed in.

*A pair that has ended* (no refresh token and the access token is over, or the refresh token's own end has passed) is
imported all the same, as *needs sign-in*: the user then sees what to do, and the clear text may go. One of another
provider is left, since nobody could tell whose it is.

*Other providers* (``openid_connect`` with sipgate as its server, or one of the site's own): their connections are known
under another uid. The pair is sealed onto the same connection first, so that a refresh cannot lose it; the gate
refreshes it if need be; sipgate then says who it belongs to, and the connection is re-keyed. Tokens that are not
provably sipgate's and this client's are not touched: they must be JWTs that name our issuer and our client id.

Must not know: terminals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta

from allauth.socialaccount.models import SocialAccount, SocialToken
from django.db import IntegrityError, connections, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from sipgate_provider import api, conf, errors
from sipgate_provider.models import Reason, SipgateToken, State, TokenEvent
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import authorization_server, database, gate, history, sealing, store

ACTOR = "sipgate_import_social_tokens"
BATCH = 200
STOP_AFTER = 5
"""So many requests for an identity that fail in succession mean an outage."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run did, or would do.

    ``connections`` had clear text; ``imported`` of them were sealed, ``need_sign_in`` of those have ended already;
    ``kept`` had a sealed pair before, which stays. ``rows_removed`` counts clear text rows. ``unusable``: there was no
    token in it; ``foreign``: not provably sipgate's and this client's; both are left as they are. For another provider:
    ``rekeyed`` are sipgate connections now, ``taken`` belong to a sipgate id that is connected already,
    ``unidentified`` have ended before sipgate could tell whose they are, ``waiting`` can be tried again.
    """

    connections: int = 0
    imported: int = 0
    need_sign_in: int = 0
    kept: int = 0
    rows_removed: int = 0
    unusable: int = 0
    foreign: int = 0
    rekeyed: int = 0
    taken: int = 0
    unidentified: int = 0
    waiting: int = 0
    seconds: float = 0.0
    stopped: str = ""
    dry_run: bool = False
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    @property
    def is_complete(self) -> bool:
        return not (
            self.unusable
            or self.foreign
            or self.taken
            or self.unidentified
            or self.waiting
            or self.stopped
        )


Progress = Callable[[Report], None]


def count(provider: str = conf.PROVIDER_ID) -> int:
    """Return how many connections of a provider have clear text rows."""
    return _with_clear_text(provider).count()


def run(
    *,
    provider: str = conf.PROVIDER_ID,
    batch: int = BATCH,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Move what there is; return the report.

    Args:
        provider: allauth's ``SocialAccount.provider``; for another than ``sipgate``, connections are re-keyed.
        batch: connections per transaction, 1 or more.
        dry_run: only count; nothing is written, and sipgate is not asked.

    Raises:
        errors.Misconfigured: there is no key to seal with or, for another provider, no client or issuer to compare
            with.
    """
    started = time.monotonic()
    report = Report(dry_run=dry_run)
    sealing.first_key_id()
    proof = None if provider == conf.PROVIDER_ID else Proof.of_this_site()
    after = 0
    while chunk := list(
        _with_clear_text(provider).filter(pk__gt=after).order_by("pk")[: max(batch, 1)]
    ):
        after = chunk[-1].pk
        _import_batch(chunk, report, proof, dry_run=dry_run)
        report.seconds = round(time.monotonic() - started, 3)
        if progress:
            progress(report)
    if proof is not None and not dry_run:
        _rekey_all(provider, proof, report)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def _with_clear_text(provider: str) -> QuerySet[SocialAccount]:
    having = (
        SocialToken.objects.using(database.alias())
        .filter(account__provider=provider)
        .values("account_id")
    )
    return SocialAccount.objects.using(database.alias()).filter(pk__in=having)


# --- sealing ----------------------------------------------------------------------------------------------------------


def _import_batch(
    chunk: list[SocialAccount], report: Report, proof: Proof | None, *, dry_run: bool
) -> None:
    # One transaction per batch, because commits would take most of the time. Nothing waits in it.
    with transaction.atomic(using=database.alias()):
        rows = SocialToken.objects.using(database.alias()).filter(account__in=chunk)
        if connections[database.alias()].features.has_select_for_update and not dry_run:
            # A sign-in that stores a newer clear text row at this moment must not be deleted unread.
            rows = (
                rows.select_for_update(of=("self",))
                if connections[database.alias()].features.has_select_for_update_of
                else rows.select_for_update()
            )
        known = set(
            SipgateToken.objects.using(database.alias())
            .filter(pk__in=[one.pk for one in chunk])
            .values_list("pk", flat=True)
        )
        by_connection: dict[int, list[SocialToken]] = {}
        for row in rows:
            by_connection.setdefault(row.account_id, []).append(row)
        for connection in chunk:
            _import_one(
                connection,
                by_connection.get(connection.pk, []),
                report,
                proof,
                known=connection.pk in known,
                dry_run=dry_run,
            )


def _import_one(
    connection: SocialAccount,
    rows: list[SocialToken],
    report: Report,
    proof: Proof | None,
    *,
    known: bool,
    dry_run: bool,
) -> None:
    if not rows:
        return
    report.connections += 1
    found = newest(rows)
    if known:
        report.kept += 1
    else:
        grant = grant_of(found, signed_in_at=connection.last_login)
        if grant is None:
            report.unusable += 1
            return
        if proof is not None and not proof.covers(grant, connection):
            report.foreign += 1
            return
        now = timezone.now()
        ended = why_ended(grant, now)
        if proof is not None and ended:
            report.unidentified += (
                1  # sipgate cannot be asked whose it is: a sign-in could not find the connection
            )
            return
        if not dry_run and not _seal(connection, grant, ended, now):
            report.kept += 1  # a sign-in was faster by a moment
        else:
            report.imported += 1
            report.need_sign_in += ended is not None
    report.rows_removed += len(rows)
    if not dry_run:
        SocialToken.objects.using(database.alias()).filter(pk__in=[row.pk for row in rows]).delete()


@sensitive_variables("grant")
def _seal(
    connection: SocialAccount, grant: oauth.Grant, ended: Reason | None, now: datetime
) -> bool:
    """Store a grant sealed, unless the connection has a row. False: it has."""
    row = store.import_grant(
        connection,
        grant,
        assumed_scope=conf.scope(),
        consented_at=connection.last_login,
        reason=ended or Reason.NONE,
        ended_at=over_at(grant),
        now=now,
    )
    if row is None:
        return False
    # The clear text goes next: what replaces it must open.
    sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
    history.add_event(
        TokenEvent.Kind.CONNECTED,
        connection=connection,
        actor=ACTOR,
        generation=row.generation,
        at=now,
        state=row.state,
        reason=row.reason,
        note="taken over from allauth's clear text table",
    )
    return True


def newest(rows: Iterable[SocialToken]) -> SocialToken:
    """Return the newest row. allauth may have stored several for a connection, since its key may be empty."""
    never = datetime.min.replace(tzinfo=UTC)
    return max(rows, key=lambda row: (row.expires_at or never, row.pk))


@sensitive_variables()
def grant_of(row: SocialToken, *, signed_in_at: datetime) -> oauth.Grant | None:
    """Return the grant of a clear text row, with what its JWTs say. None: there is no access token in it.

    allauth stores neither the time of issue, nor the scope, nor the end of the refresh token, but sipgate's tokens
    contain them. Without them, a pair counts as issued when the person last signed in, and is refreshed at the first
    opportunity.
    """
    access, refresh = oauth.jwt_claims(row.token), oauth.jwt_claims(row.token_secret or "")
    ends = row.expires_at or _moment(access.get("exp"))
    issued_at = _moment(access.get("iat")) or signed_in_at
    if ends and ("iat" not in access or ends <= issued_at):
        issued_at = ends - conf.assumed_lifetime()
    link_ends = _moment(refresh.get("exp"))
    data = {
        "access_token": row.token,
        "refresh_token": row.token_secret,
        "scope": access.get("scope"),
        "expires_in": (ends - issued_at).total_seconds() if ends else None,
        "refresh_expires_in": (link_ends - issued_at).total_seconds() if link_ends else None,
    }
    try:
        client = access.get("azp")
        return oauth.Grant.parse(
            data, issued_at=issued_at, client_id=client if isinstance(client, str) else ""
        )
    except errors.UnexpectedResponse:
        return None


def over_at(grant: oauth.Grant) -> datetime:
    """Return when the access token ends."""
    return grant.issued_at + (
        _delta(grant.expires_in) if grant.expires_in else conf.assumed_lifetime()
    )


def why_ended(grant: oauth.Grant, now: datetime) -> Reason | None:
    """Return why a pair can only be replaced by a new sign-in, or None if it can be used."""
    if over_at(grant) > now:
        return None
    if grant.refresh_token is None:
        return Reason.NO_REFRESH_TOKEN
    if grant.refresh_expires_in and grant.issued_at + _delta(grant.refresh_expires_in) <= now:
        return Reason.EXPIRED_IDLE
    return None


def _moment(value: object) -> datetime | None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value < 32_503_680_000
    ):
        return None
    return datetime.fromtimestamp(value, UTC)


def _delta(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


# --- other providers --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a token must say about itself before it is sent anywhere."""

    issuer: str
    client_id: str

    @classmethod
    def of_this_site(cls) -> Proof:
        """Raises ``errors.Misconfigured`` if this site's issuer or client is not known."""
        client, issuer = authorization_server.client(), conf.issuer()
        if not issuer:
            raise errors.Misconfigured(
                "sipgate's tokens cannot be recognised among another provider's: set SIPGATE_ISSUER.",
                setting="SIPGATE_ISSUER",
            )
        return cls(issuer=issuer, client_id=client.client_id)

    def covers(self, grant: oauth.Grant, connection: SocialAccount) -> bool:
        """Tell whether the token is sipgate's, was issued to this client, and belongs to this connection's person.

        Unverified claims suffice: the row is our own, and the only risk is to send a foreign token to sipgate.
        """
        claims = oauth.jwt_claims(grant.access_token)
        subject = claims.get("sub")
        return (
            claims.get("iss") == self.issuer
            and claims.get("azp") == self.client_id
            and isinstance(subject, str)
            and (connection.uid == subject or api.is_uid(connection.uid))
        )


def _rekey_all(provider: str, proof: Proof, report: Report) -> None:
    in_a_row = 0
    rows = (
        SipgateToken.objects.using(database.alias())
        .filter(connection__provider=provider)
        .select_related("connection")
    )
    for row in rows.order_by("pk"):
        if row.state == State.NEEDS_SIGN_IN:
            report.unidentified += 1
            continue
        try:
            _rekey(row, report)
        except errors.NeedsSignIn:
            report.unidentified += 1
        except errors.Misconfigured as error:
            report.stopped = error.message
            return
        except errors.SipgateError as error:
            report.waiting += 1
            in_a_row += 1
            if in_a_row >= STOP_AFTER:
                report.stopped = f"sipgate does not answer: {error.message}"
                return
        else:
            in_a_row = 0


def _rekey(row: SipgateToken, report: Report) -> None:
    """Ask sipgate whose pair it is, and give the connection that id. Raises as ``tokens.usable``."""
    connection = row.connection
    token, who = gate.call(
        connection, lambda token: api.fetch_identity(conf.api_url(), token.value), row=row
    )
    if api.is_uid(connection.uid) and connection.uid != who.uid:
        report.taken += 1
        report.notes.append(
            f"Connection {connection.pk} names another sipgate id than its token; it was left alone."
        )
        return
    subject = oauth.jwt_claims(token.value).get("sub")
    data = {
        "sub": who.sub,
        "masterSipId": who.master_sip_id,
        "domain": who.domain,
        "locale": who.locale,
    }
    data["oidc_sub"] = subject if isinstance(subject, str) else ""
    values = {
        "provider": conf.PROVIDER_ID,
        "uid": who.uid,
        "extra_data": {key: value for key, value in data.items() if value},
    }
    accounts = SocialAccount.objects.using(database.alias())
    try:
        with transaction.atomic(using=database.alias()):
            if not accounts.filter(
                pk=connection.pk, provider=connection.provider, uid=connection.uid
            ).update(**values):
                return  # disconnected, or re-keyed by another run
            history.add_event(
                TokenEvent.Kind.CONNECTED,
                connection=accounts.get(pk=connection.pk),
                actor=ACTOR,
                generation=token.generation,
                note=f"was known to the provider {connection.provider}",
            )
    except IntegrityError:
        report.taken += 1
        report.notes.append(
            f"Connection {connection.pk} belongs to a sipgate id that is connected already; it was left alone."
        )
        return
    report.rekeyed += 1
