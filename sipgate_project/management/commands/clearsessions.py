"""``clearsessions`` that also removes the addresses and browsers of ended sessions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.sessions.management.commands.clearsessions import (
    Command as ClearSessionsCommand,
)
from django.utils import timezone


class Command(ClearSessionsCommand):
    def handle(self, **options: Any) -> None:
        super().handle(**options)
        ended = timezone.now() - timedelta(seconds=settings.SESSION_COOKIE_AGE)
        UserSession.objects.filter(last_seen_at__lt=ended).delete()
