"""Tokens in the clear, as the peers keep them."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models


class ClearToken(models.Model):
    """django-esi's and plain allauth's shape: two text columns and when they were made."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    uid = models.CharField(max_length=191, db_index=True)
    access_token = models.TextField()
    refresh_token = models.TextField()
    created = models.DateTimeField()

    def __str__(self) -> str:
        return self.uid


class ClearJson(models.Model):
    """social-auth-app-django's shape: everything in one JSON column."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    uid = models.CharField(max_length=191, db_index=True)
    extra_data: Any = models.JSONField(default=dict)

    def __str__(self) -> str:
        return self.uid
