"""The app in sites that are set up in other ways than this project's: each signs in, renews, disconnects over HTTP."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests import postgres
from tests.package import foreign
from tests.package.conftest import Foreign

WITH_ADMIN = """
INSTALLED_APPS = ["django.contrib.admin", "django.contrib.staticfiles", *INSTALLED_APPS]
STATIC_URL = "static/"
ROOT_URLCONF = "urls_with_admin"
"""

OWN_USERS = """
INSTALLED_APPS += ["people"]
AUTH_USER_MODEL = "people.Person"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
SIPGATE_SCOPE = ["account:read", "users:read"]
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
SOCIALACCOUNT_PROVIDERS["sipgate"]["VERIFIED_EMAIL"] = ["rosenduft.example"]
"""

CLIENT_IN_THE_DATABASE = """
SOCIALACCOUNT_PROVIDERS = {}
"""
MAKE_CLIENT = """
from allauth.socialaccount.models import SocialApp
app = SocialApp.objects.create(
    provider="sipgate", name="sipgate", client_id="1000000-1-sandbox:third-party", secret="sandbox-secret"
)
"""

THE_SITE = """
from urllib.parse import urlsplit
from django.contrib.sites.models import Site
Site.objects.update(domain=urlsplit(settings.ORIGIN).netloc)
"""

MAKE_BOSS = """
from django.contrib.auth import get_user_model
fields = {"email": "boss@b.example", "password": "correct horse battery"}
names = {"username": "boss@b.example"} if get_user_model().USERNAME_FIELD == "username" else {}
get_user_model().objects.create_superuser(**names, **fields)
"""

HEADLESS = """
INSTALLED_APPS += ["allauth.headless"]
ROOT_URLCONF = "urls_headless"
HEADLESS_CLIENTS = ["browser"]
HEADLESS_FRONTEND_URLS = {
    "account_confirm_email": f"{ORIGIN}/app/verify/{{key}}",
    "account_reset_password": f"{ORIGIN}/app/reset",
    "account_reset_password_from_key": f"{ORIGIN}/app/reset/{{key}}",
    "account_signup": f"{ORIGIN}/app/signup",
    "socialaccount_login_error": f"{ORIGIN}/app/login-error",
}
"""

TWO_DATABASES = """
DATABASES["archive"] = {**DATABASES["default"], "NAME": BASE_DIR / "archive.sqlite3"}
DATABASE_ROUTERS = ["routers.SipgateHere"]
"""


REFUSE_SIGN_UPS = """
from allauth.account.signals import user_signed_up
from django.core.exceptions import PermissionDenied
def refuse(**_kwargs):
    raise PermissionDenied
user_signed_up.connect(refuse, weak=False)
"""


def on_postgresql(url: str) -> str:
    """Return settings for a server's database."""
    parts = urlsplit(url)
    socket_folder = parse_qs(parts.query).get("host", [""])[0]
    return f"""
DATABASES = {{"default": {{
    "ENGINE": "django.db.backends.postgresql",
    "NAME": {parts.path.strip("/")!r},
    "USER": {parts.username!r},
    "PASSWORD": {parts.password!r},
    "HOST": {socket_folder or parts.hostname!r}, "PORT": {str(parts.port or "")!r}, "ATOMIC_REQUESTS": True,
}}}}
"""


def enter_admin(visitor: foreign.Visitor) -> foreign.Visitor:
    visitor.get("/admin/login/")
    inside = visitor.post(
        "/admin/login/?next=/admin/",
        {"username": "boss@b.example", "password": "correct horse battery"},
    )
    assert inside.status_code == 200
    return visitor


class TestSites:
    @pytest.mark.parametrize("site_id", ["SITE_ID = 1", ""], ids=["by-setting", "by-host"])
    def test_of_django(self, foreign_site: Foreign, site_id: str) -> None:
        site = foreign_site(
            f'INSTALLED_APPS += ["django.contrib.sites"]\n{site_id}', prepare=THE_SITE
        )
        with site.serving() as visitor:
            visitor.walk()

    def test_with_the_client_in_the_database(self, foreign_site: Foreign) -> None:
        site = foreign_site(
            f'INSTALLED_APPS += ["django.contrib.sites"]\n{CLIENT_IN_THE_DATABASE}',
            prepare=f"{THE_SITE}\n{MAKE_CLIENT}\napp.sites.add(Site.objects.get())",
        )
        with site.serving() as visitor:
            visitor.walk()


class TestClient:
    def test_may_be_a_row(self, foreign_site: Foreign) -> None:
        site = foreign_site(CLIENT_IN_THE_DATABASE)
        with site.serving() as visitor:
            missing = visitor.get("/accounts/sipgate/login/")
            assert (missing.status_code, "not set up correctly" in missing.text) == (503, True)
            site.python_says(MAKE_CLIENT)
            visitor.walk()

    def test_may_be_kept_in_the_admin(self, foreign_site: Foreign) -> None:
        site = foreign_site(WITH_ADMIN + CLIENT_IN_THE_DATABASE, prepare=MAKE_BOSS)
        with site.serving() as visitor:
            boss = enter_admin(visitor)
            row = {
                "provider": "sipgate",
                "name": "first",
                "client_id": "1000000-1-sandbox:third-party",
                "settings": "{}",
            }
            made = boss.post(
                "/admin/socialaccount/socialapp/add/", {**row, "secret": "sandbox-secret"}
            )
            assert (made.status_code, "was added successfully" in made.text) == (200, True), (
                made.text
            )
            shown = boss.get("/admin/socialaccount/socialapp/1/change/")
            assert "1000000-1-sandbox" in shown.text
            assert "sandbox-secret" not in shown.text
            assert (
                boss.post(
                    "/admin/socialaccount/socialapp/1/change/", {**row, "name": "renamed"}
                ).status_code
                == 200
            )
            history = boss.get("/admin/socialaccount/socialapp/1/history/").text
            (changed,) = re.findall(r"Changed [^.<]*", history)
            assert ("Name" in changed, "ecret" in changed) == (True, False)
            foreign.Visitor(site).walk()  # with the secret that was left empty

    def test_callback_may_lie_where_allauth_puts_it(self, foreign_site: Foreign) -> None:
        site = foreign_site("del SIPGATE_REDIRECT_URI")
        with site.serving() as visitor:
            asked = parse_qs(urlsplit(visitor.authorize_url()).query)
            assert asked["redirect_uri"] == [f"{site.origin}/accounts/sipgate/login/callback/"]
            visitor.walk()


class TestUsers:
    def test_may_be_of_another_model(self, foreign_site: Foreign) -> None:
        site = foreign_site(WITH_ADMIN + OWN_USERS)
        with site.serving() as visitor:
            visitor.walk()
            site.manage("makemigrations", "--check", "--dry-run")
            people = (
                "from people.models import Person; print([p.email for p in Person.objects.all()])"
            )
            assert site.python_says(people) == "['rosa@rosenduft.example']"
            nameless = foreign.Visitor(site)
            asked = nameless.sign_in(
                person="6000000w0"
            )  # sipgate knows no address: allauth asks for one
            assert "/accounts/3rdparty/signup/" in asked.url
            done = nameless.post(asked.url, {"email": "namenlos@ohnepost.example"})
            assert done.json()["company"] == "Ohnepost e. K."

    def test_of_another_model_are_shown_in_the_admin(self, foreign_site: Foreign) -> None:
        site = foreign_site(WITH_ADMIN + OWN_USERS, prepare=MAKE_BOSS)
        with site.serving() as visitor:
            visitor.sign_in()
            boss = enter_admin(foreign.Visitor(site))
            listed = boss.get("/admin/socialaccount/socialaccount/?q=rosa%40rosenduft.example")
            assert listed.status_code == 200
            assert "rosa@rosenduft.example" in listed.text
            for path in ("", "tokenevent/", "revocation/", "clientpause/"):
                assert boss.get(f"/admin/sipgate_provider/{path}").status_code == 200, path
        assert "Traceback" not in site.log.read_text()


class TestRequests:
    def test_may_require_a_login_everywhere(self, foreign_site: Foreign) -> None:
        position = 'MIDDLEWARE.index("django.contrib.auth.middleware.AuthenticationMiddleware") + 1'
        site = foreign_site(
            f'MIDDLEWARE.insert({position}, "django.contrib.auth.middleware.LoginRequiredMiddleware")\n'
            'LOGIN_URL = "account_login"'
        )
        with site.serving() as visitor:
            denied = visitor.get(visitor.consent(visitor.authorize_url(), allow=False))
            assert (denied.status_code, "The sign-in was cancelled" in denied.text) == (401, True)
            visitor.walk()

    def test_may_be_transactions_on_sqlite(self, foreign_site: Foreign) -> None:
        """A request that holds the only write lock makes a refresh fail: at once, with a reason, and without a loss."""
        silenced = 'SILENCED_SYSTEM_CHECKS = ["sipgate_provider.W011"]'
        site = foreign_site(f'DATABASES["default"]["ATOMIC_REQUESTS"] = True\n{silenced}')
        with site.serving() as visitor:
            assert visitor.sign_in().json()["generation"] == 1
            refused = visitor.post("/refresh")
            assert (refused.status_code, "ATOMIC_REQUESTS" in refused.text) == (503, True)
            assert refused.elapsed.total_seconds() < 10
            assert visitor.get("/company").json()["generation"] == 1
            assert site.sandbox.control.state().get("refresh", 0) == 0

    def test_may_be_transactions_on_postgresql(
        self, foreign_site: Foreign, wheel: Path, tmp_path: Path
    ) -> None:
        python = foreign.environment(
            tmp_path / "venv",
            str(wheel),
            "psycopg[binary]",
            constraints=foreign.ROOT / "requirements.txt",
        )
        with postgres.running() as url:
            with foreign_site(on_postgresql(url), python=python).serving() as visitor:
                visitor.walk()


class TestDatabases:
    def test_may_be_two(self, foreign_site: Foreign) -> None:
        site = foreign_site(TWO_DATABASES)
        with site.serving() as visitor:
            visitor.walk()
        tables = "from django.db import connections; print(connections['archive'].introspection.table_names())"
        assert "sipgate" not in site.python_says(tables)

    def test_need_not_be_the_default_one(self, foreign_site: Foreign) -> None:
        """Everything about people lies in another database; the default one has nothing of it."""
        site = foreign_site(TWO_DATABASES.replace("SipgateHere", "PeopleInTheArchive"))
        with site.serving() as visitor:
            visitor.walk()
        tables = "from django.db import connections; print(connections['default'].introspection.table_names())"
        assert "sipgate" not in site.python_says(tables)

    def test_a_refused_sign_up_leaves_nothing_behind_in_another_one(
        self, foreign_site: Foreign
    ) -> None:
        site = foreign_site(
            TWO_DATABASES.replace("SipgateHere", "PeopleInTheArchive"), prepare=REFUSE_SIGN_UPS
        )
        with site.serving() as visitor:
            assert visitor.sign_in().status_code == 401
        users = "from django.contrib.auth import get_user_model; print(get_user_model().objects.count())"
        assert site.python_says(users) == "0"

    def test_cannot_work_without_time_zones(self, foreign_site: Foreign) -> None:
        site = foreign_site("USE_TZ = False")
        said = site.manage("check", check=False)
        assert "sipgate_provider.E015" in said
        assert "USE_TZ = True" in said


class TestHeadless:
    FRONTEND = "/app/after"

    @pytest.fixture
    def site(self, foreign_site: Foreign) -> foreign.ForeignSite:
        return foreign_site(HEADLESS)

    def start(self, visitor: foreign.Visitor) -> str:
        """As a single-page application does: a form of its own, posted to allauth's endpoint."""
        visitor.get("/_allauth/browser/v1/config")
        visitor.get("/app/")  # its page sets the CSRF cookie
        form = {
            "provider": "sipgate",
            "callback_url": f"{visitor.site.origin}{self.FRONTEND}",
            "process": "login",
        }
        answer = visitor.post(
            "/_allauth/browser/v1/auth/provider/redirect", form, allow_redirects=False
        )
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"]

    def back(
        self, visitor: foreign.Visitor, *, allow: bool = True
    ) -> tuple[str, dict[str, list[str]]]:
        """Return path and query of where the callback leads."""
        answer = visitor.get(
            visitor.consent(self.start(visitor), allow=allow), allow_redirects=False
        )
        assert answer.status_code == 302, answer.text
        where = urlsplit(answer.headers["Location"])
        return where.path, parse_qs(where.query)

    def leads(self, visitor: foreign.Visitor, address: str) -> str:
        """Return where a callback leads, past its own address."""
        while urlsplit(address).path == "/oauth":
            answer = visitor.get(address, allow_redirects=False)
            assert answer.status_code == 302, answer.text
            address = answer.headers["Location"]
        return address

    def test_a_sign_in_ends_at_the_frontend(self, site: foreign.ForeignSite) -> None:
        with site.serving() as visitor:
            assert self.back(visitor) == (self.FRONTEND, {})
            session = visitor.get("/_allauth/browser/v1/auth/session").json()
            assert session["meta"]["is_authenticated"]
            assert visitor.get("/company").json()["generation"] == 1
            listed = visitor.get("/_allauth/browser/v1/account/providers").json()["data"]
            assert [one["uid"] for one in listed] == ["1000000w0"]

    def test_failures_end_there_too(self, site: foreign.ForeignSite) -> None:
        with site.serving() as visitor:
            assert self.back(visitor, allow=False) == (
                self.FRONTEND,
                {"error": ["cancelled"], "error_process": ["login"]},
            )
            for fault, place in (
                ("unavailable", "token"),
                ("missing-sub", "userinfo"),
                ("unauthorized-client", "token"),
            ):
                site.sandbox.control.fault(fault, on=place, times=None)
                path, query = self.back(visitor)
                assert (path, query["error_process"]) == (self.FRONTEND, ["login"]), fault
                assert query["error"] == ["unknown"], fault
                site.sandbox.control.clear()
            assert not visitor.get("/_allauth/browser/v1/auth/session").json()["meta"][
                "is_authenticated"
            ]
        assert "Traceback" not in site.log.read_text()

    def test_a_repeated_callback_ends_there_too(self, site: foreign.ForeignSite) -> None:
        with site.serving() as visitor:
            callback = visitor.consent(self.start(visitor))
            for _ in range(2):
                assert urlsplit(self.leads(visitor, callback)).path == self.FRONTEND
            assert site.sandbox.control.state()["reuses"] == 0

    def test_a_narrower_sign_in_brings_back_what_was_allowed(self, foreign_site: Foreign) -> None:
        site = foreign_site(f'{HEADLESS}\nSIPGATE_SCOPE = ["account:read", "balance:read"]')
        with site.serving() as visitor:
            assert self.back(visitor) == (self.FRONTEND, {})
        with (site.folder / "settings.py").open("a", encoding="utf-8") as settings:
            settings.write('SIPGATE_SCOPE = ["account:read"]\n')
        with site.serving() as visitor:
            detour = self.leads(visitor, visitor.consent(self.start(visitor)))
            assert parse_qs(urlsplit(detour).query)["prompt"] == ["none"]
            assert urlsplit(self.leads(visitor, visitor.consent(detour))).path == self.FRONTEND
        scope = site.python_says(
            "from sipgate_provider.models import SipgateToken as T; print(T.objects.get().scope)"
        )
        assert set(scope.split()) >= {"account:read", "balance:read"}

    def test_only(self, foreign_site: Foreign) -> None:
        """Without allauth's pages: an answer that belongs to no sign-in goes to the frontend's error page."""
        site = foreign_site(f"{HEADLESS}\nHEADLESS_ONLY = True\nLOGIN_URL = '/app/login'")
        with site.serving() as visitor:
            answer = visitor.get("/oauth?state=of-yesterday&code=x", allow_redirects=False)
            assert answer.status_code == 302, answer.text
            assert urlsplit(answer.headers["Location"]).path == "/app/login-error"
            assert self.back(visitor) == (self.FRONTEND, {})
            problem = visitor.get("/company")
            assert problem.json()["generation"] == 1
