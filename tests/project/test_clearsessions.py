"""``manage.py clearsessions`` of the site."""

from datetime import timedelta

import pytest
from allauth.usersessions.models import UserSession
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.utils import timezone


@pytest.mark.django_db
def test_what_was_noted_of_an_ended_session_goes_with_it():
    user = get_user_model().objects.create(username="erika")
    for key, days in (("ended", 15), ("living", 13)):
        session = UserSession.objects.create(
            user=user, session_key=key, ip="203.0.113.9", user_agent="Browser"
        )
        UserSession.objects.filter(pk=session.pk).update(
            last_seen_at=timezone.now() - timedelta(days=days)
        )
    call_command("clearsessions")
    assert list(UserSession.objects.values_list("session_key", flat=True)) == ["living"]
