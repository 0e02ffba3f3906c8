"""What the sandbox adds to allauth's clients and tokens: sessions that live and die as Keycloak's do."""

from __future__ import annotations

import hashlib

from django.conf import settings
from django.db import models


class KeycloakSession(models.Model):
    """One sign-in at the sandbox, with everything issued in it. Ends as a whole."""

    id = models.CharField(primary_key=True, max_length=40)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    alive = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.id


class Issued(models.Model):
    """A code or token that was given out, by its hash: which session it belongs to, and whether it is used up."""

    hash = models.CharField(primary_key=True, max_length=64)
    kind = models.CharField(max_length=8)
    session = models.ForeignKey(KeycloakSession, on_delete=models.CASCADE)
    spent = models.BooleanField(default=False)

    class Meta:
        indexes = [models.Index(fields=["session", "kind"], name="sandbox_issued_session")]

    def __str__(self) -> str:
        return f"{self.kind} of {self.session_id}"


class RememberedConsent(models.Model):
    """A person allowed a client these scopes; it is not asked again until they change."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    client_id = models.CharField(max_length=100)
    scopes = models.TextField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "client_id"], name="sandbox_one_consent")]

    def __str__(self) -> str:
        return f"{self.user_id} → {self.client_id}"


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
