"""Whose tokens are sent where: each connection's to the client that they were issued to, and
nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.socialaccount.models import SocialApp

from sipgate_provider import background, errors, tokens
from sipgate_provider.models import Reason, SipgateToken, State
from tests.processes import run_program

pytestmark = pytest.mark.django_db(transaction=True)

HERE, THERE = "1000000-1-here:third-party", "2000000-1-there:third-party"


class TestSeveralClients:
    """``SocialApp`` has one for each Django site, and they share a database."""

    def test_each_row_is_refreshed_by_its_own(self, connect, several):
        for client_id in (HERE, THERE):
            connection = connect(age=400, client_id=client_id)
            assert tokens.client(tokens.load(connection.pk)).client_id == client_id
            assert tokens.token(connection).number == 2
            assert tokens.load(connection.pk).client_id == client_id

    def test_access_is_ended_by_the_rows_own(self, connect, rotator, several):
        connect(client_id=THERE).delete()
        assert background.errands.wait_idle(10)
        assert rotator.counts()["revoke"] == 1

    def test_which_one_is_meant_without_a_site_is_asked_with_a_cure(self, connect, several):
        with pytest.raises(errors.Misconfigured, match="Keep one for each site") as caught:
            tokens.token(connect(age=400))
        for app in SocialApp.objects.all():
            assert f"{app.client_id} (SocialApp {app.pk})" in caught.value.message

    def test_with_sites_it_is_that_of_this_site(self):
        done = run_program(WITH_SITES)
        assert done.stdout.splitlines()[-2:] == [HERE, THERE], done.stderr[-2000:]


class TestOtherClient:
    def test_its_tokens_are_not_sent_and_work_again_when_it_is_back(self, connect, rotator):
        connection = connect(age=400, client_id=THERE)
        for _ in range(2):
            with pytest.raises(errors.Misconfigured, match=f"another client .{THERE}"):
                tokens.token(connection)
        row = tokens.load(connection.pk)
        assert (row.state, row.reason) == (State.MISCONFIGURED, Reason.OTHER_CLIENT)
        assert rotator.counts()["arrived"] == 0
        SipgateToken.objects.update(client_id="")
        assert tokens.token(connection).number == 2


@pytest.fixture
def several(settings: Any, db: None) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {}}
    for client_id in (HERE, THERE):
        SocialApp.objects.create(provider="sipgate", name="x", client_id=client_id, secret="s")


WITH_SITES = f"""
import django
from tests import settings

settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.sites"]
settings.SITE_ID = 1
settings.SOCIALACCOUNT_PROVIDERS = {{"sipgate": {{}}}}
django.setup()
from allauth.socialaccount.models import SocialApp
from django.conf import settings as django_settings
from django.contrib.sites.models import Site
from django.db import connection
from sipgate_provider import tokens

connection.creation.create_test_db(verbosity=0)
here, _ = Site.objects.get_or_create(pk=1, defaults={{"domain": "here.example"}})
there = Site.objects.create(domain="there.example", name="there")
for site, client_id in ((here, "{HERE}"), (there, "{THERE}")):
    made = SocialApp.objects.create(provider="sipgate", client_id=client_id, secret="s")
    made.sites.add(site)
print(tokens.client().client_id)
django_settings.SITE_ID = there.pk
print(tokens.client().client_id)
"""
