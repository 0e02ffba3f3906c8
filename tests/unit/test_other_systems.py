"""Python on another system lacks some modules and functions: everything works by the lease
alone."""

from tests.processes import run_program


def test_without_fcntl_fork_boottime_and_proc(tmp_path):
    done = run_program(PROGRAM, str(tmp_path / "journal"))
    assert done.stdout.splitlines()[-1:] == ["works"], done.stderr[-2000:]


PROGRAM = """
import builtins, os, pathlib, sys, time

sys.modules["fcntl"] = None
del os.fork, os.register_at_fork
for name in ("clock_gettime", "CLOCK_BOOTTIME"):
    delattr(time, name)
opens = builtins.open

def without_proc(file, *args, **kwargs):
    if str(file).startswith("/proc"):
        raise FileNotFoundError(file)
    return opens(file, *args, **kwargs)

builtins.open = without_proc
import django

django.setup()
from datetime import UTC, datetime, timedelta
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection as database
from django.test import Client, override_settings
from allauth.socialaccount.models import SocialAccount

database.creation.create_test_db(verbosity=0)
call_command("check")
assert Client(HTTP_HOST="localhost:8080").get("/").status_code == 200
from sipgate_provider import background, tokens
from sipgate_provider.remote import oauth
from tests.rotator import Rotator

with Rotator.running() as server, override_settings(
    SIPGATE_TOKEN_URL=server.token_url, SIPGATE_JOURNAL_DIR=sys.argv[1]
):
    user = get_user_model().objects.create(username="erika")
    connection = SocialAccount.objects.create(user=user, provider="sipgate", uid="1000000w0")
    issued = datetime.now(UTC) - timedelta(seconds=400)
    tokens.store(connection, oauth.Tokens.parse(server.issue()[0], issued_at=issued))
    assert tokens.token(connection).number == 2
    assert tokens.refresh(connection).number == 3
    assert len(list(pathlib.Path(sys.argv[1]).glob("*/*.sealed"))) == 1
    assert (tokens.recover(), tokens.reseal().left) == (0, 0)
    connection.delete()
    assert background.errands.wait_idle(10)
    assert server.counts()["revoke"] == 1
print("works")
"""
