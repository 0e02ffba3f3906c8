"""Ends grants and browser sessions. All grants of a browser session end together, as at Keycloak."""

from __future__ import annotations

from .models import BrowserSession, Client, Credential, Grant


def end_session(session: BrowserSession) -> None:
    """End a browser session, and with it the ordinary grants of every application."""
    BrowserSession.objects.filter(pk=session.pk).update(alive=False)


def end_grants_of_client(grant: Grant) -> None:
    """End ``grant`` with all that its client has in its browser session. An offline grant ends alone."""
    if grant.offline:
        Grant.objects.filter(pk=grant.pk).update(alive=False)
    else:
        Grant.objects.filter(session=grant.session, client=grant.client, offline=False).update(
            alive=False
        )


def end_grants_of_person(person: str, client: Client | None = None) -> int:
    """End all grants of a person (to ``client``, or to all), also offline ones; return their number."""
    grants = Grant.objects.filter(session__person=person, alive=True)
    return (grants.filter(client=client) if client else grants).update(alive=False)


def end_session_without_grants(session: BrowserSession) -> None:
    """End a browser session that no application uses any more."""
    if not Grant.objects.filter(session=session, offline=False, alive=True).exists():
        end_session(session)


def drop_access_tokens(grant: Grant) -> None:
    Credential.objects.filter(grant=grant, kind=Credential.Kind.ACCESS).delete()
