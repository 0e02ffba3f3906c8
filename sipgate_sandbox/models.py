"""What the authorization server stores: clients, consents, browser sessions, grants and their tokens."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from django.db import models
from django.utils import timezone

from . import behaviour


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


class Client(models.Model):
    """An application that is registered here."""

    id = models.CharField(primary_key=True, max_length=100)
    name = models.CharField(max_length=100)
    secret_hash = models.CharField(max_length=64)
    redirect_uris = models.JSONField(default=list)
    scopes = models.JSONField(default=list)
    enabled = models.BooleanField(default=True)

    def __str__(self) -> str:
        return self.id


class Consent(models.Model):
    """A person has allowed a client these scopes and is not asked for them again."""

    person = models.CharField(max_length=40)
    client = models.ForeignKey(Client, on_delete=models.CASCADE)
    scopes = models.JSONField(default=list)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["person", "client"], name="sandbox_one_consent_per_client"
            )
        ]

    def __str__(self) -> str:
        return f"{self.person} → {self.client_id}"


class BrowserSession(models.Model):
    """One person who is signed in with one browser. The grants of all applications in it end with it."""

    id = models.CharField(primary_key=True, max_length=40)
    person = models.CharField(max_length=40)
    alive = models.BooleanField(default=True)
    started_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.id

    @property
    def seconds_left(self) -> int:
        end = self.started_at + timedelta(seconds=behaviour.current.session_lifetime)
        return int((end - timezone.now()).total_seconds())

    @property
    def is_usable(self) -> bool:
        return self.alive and self.seconds_left > 0


class Grant(models.Model):
    """The grant of one sign-in to one client: a chain of tokens, each of which replaces the one before."""

    session = models.ForeignKey(BrowserSession, on_delete=models.CASCADE)
    client = models.ForeignKey(Client, on_delete=models.CASCADE)
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


class Credential(models.Model):
    """The hash of a code or token that was issued."""

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
        """Tell whether it was issued before the realm's *not before*."""
        return self.issued_at.timestamp() < behaviour.current.not_before

    @classmethod
    def find(cls, value: str, *kinds: Kind) -> Credential | None:
        return (
            cls.objects.filter(hash=digest(value), kind__in=kinds)
            .select_related("grant__session", "grant__client")
            .first()
        )
