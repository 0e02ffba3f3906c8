"""What the authorization server stores: consents, browser sessions, grants, codes and tokens."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from django.db import models
from django.utils import timezone

from . import realm
from .people import BY_UID, Person


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


class Consent(models.Model):
    """A person has allowed a client these scopes. The server does not ask for them again."""

    uid = models.CharField(max_length=40)
    client_id = models.CharField(max_length=100)
    scopes = models.JSONField(default=list)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["uid", "client_id"], name="sandbox_one_consent_per_client"
            )
        ]

    def __str__(self) -> str:
        return f"{self.uid} → {self.client_id}"

    @classmethod
    def missing(cls, uid: str, client_id: str, scopes: list[str]) -> list[str]:
        """Return those of ``scopes`` that the person has yet to allow."""
        if not realm.current.consent_required:
            return []
        consent = cls.objects.filter(uid=uid, client_id=client_id).first()
        return [scope for scope in scopes if consent is None or scope not in consent.scopes]


class BrowserSession(models.Model):
    """One person, signed in with one browser. The grants of all applications end with it."""

    id = models.CharField(primary_key=True, max_length=40)
    uid = models.CharField(max_length=40)
    alive = models.BooleanField(default=True)
    started_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.id

    @property
    def person(self) -> Person:
        return BY_UID[self.uid]

    @property
    def seconds_left(self) -> int:
        end = self.started_at + timedelta(seconds=realm.current.session_lifetime)
        return int((end - timezone.now()).total_seconds())

    @property
    def is_usable(self) -> bool:
        return self.alive and self.seconds_left > 0

    def end(self) -> None:
        """End the session, and with it the ordinary grants of every application."""
        BrowserSession.objects.filter(pk=self.pk).update(alive=False)

    def end_if_unused(self) -> None:
        """End the session if no application uses it any more."""
        if not Grant.objects.filter(session=self, offline=False, alive=True).exists():
            self.end()


class Grant(models.Model):
    """The grant of one sign-in to one client: a chain of tokens, each replacing the one before."""

    session = models.ForeignKey(BrowserSession, on_delete=models.CASCADE)
    client_id = models.CharField(max_length=100)
    scopes = models.JSONField(default=list)
    offline = models.BooleanField(default=False, help_text="Outlives the browser session.")
    alive = models.BooleanField(default=True)
    redirect_uri = models.TextField()
    code_challenge = models.CharField(max_length=200, default="")
    nonce = models.TextField(default="")

    def __str__(self) -> str:
        return f"{self.client_id} in {self.session_id}"

    @property
    def is_usable(self) -> bool:
        return self.alive and (self.offline or self.session.is_usable)

    def end(self) -> None:
        """End this grant and the client's others in the session. An offline grant ends alone."""
        same = (
            {"pk": self.pk}
            if self.offline
            else {"session": self.session, "client_id": self.client_id, "offline": False}
        )
        Grant.objects.filter(**same).update(alive=False)


class Credential(models.Model):
    """The hash of a code or a token that the server has issued."""

    class Kind(models.TextChoices):
        CODE = "code"
        ACCESS = "access"
        REFRESH = "refresh"

    hash = models.CharField(primary_key=True, max_length=64)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    grant = models.ForeignKey(Grant, on_delete=models.CASCADE)
    scopes = models.JSONField(default=list)
    spent = models.BooleanField(default=False)
    issued_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.kind} of {self.grant_id}"

    @property
    def has_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()

    @property
    def is_stale(self) -> bool:
        """Tell whether the server issued it before the realm's ``not_before``."""
        return self.issued_at.timestamp() < realm.current.not_before

    @classmethod
    def find(cls, value: str, kind: Kind) -> Credential | None:
        found = cls.objects.filter(hash=digest(value), kind=kind)
        return found.select_related("grant__session").first()

    @classmethod
    def find_usable(cls, access_token: str) -> Credential | None:
        """Return an access token that is valid now."""
        found = cls.find(access_token, cls.Kind.ACCESS)
        if found is None or found.has_expired or found.is_stale or not found.grant.is_usable:
            return None
        return None if found.grant.session.uid in realm.current.disabled else found

    def spend(self) -> bool:
        """Spend a code or a refresh token, unless another request has; return whether it worked."""
        return Credential.objects.filter(pk=self.pk, spent=False).update(spent=True) == 1
