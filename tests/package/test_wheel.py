"""What is in the package, and that it is all a foreign site needs."""

from __future__ import annotations

import email
import re
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

from tests.package import foreign
from tests.package.conftest import Foreign


def tracked() -> set[str]:
    """Return the app's files as the repository has them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "sipgate_provider"],
        cwd=foreign.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listed.stdout.split())


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


class TestContents:
    def test_the_wheel_holds_the_app_and_nothing_else(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        info = {name for name in names if name.startswith("django_sipgate_provider-")}
        assert names - info == tracked()
        assert {name.partition("/")[2] for name in info} == {
            "METADATA",
            "RECORD",
            "WHEEL",
            "top_level.txt",
            "licenses/LICENSE",
        }
        assert {
            "sipgate_provider/py.typed",
            "sipgate_provider/migrations/0001_initial.py",
            "sipgate_provider/management/commands/sipgate_keepalive.py",
            "sipgate_provider/templates/sipgate_provider/problem.html",
            "sipgate_provider/static/sipgate_provider/admin.css",
        } <= names

    def test_the_source_distribution_holds_what_builds_it_and_nothing_else(
        self, built: tuple[Path, Path]
    ) -> None:
        with tarfile.open(built[0]) as archive:
            names = {
                member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()
            }
        egg = {name for name in names if name.startswith("django_sipgate_provider.egg-info/")}
        assert names - egg == tracked() | {
            "LICENSE",
            "README.md",
            "PKG-INFO",
            "pyproject.toml",
            "setup.cfg",
        }

    def test_every_template_and_static_file_belongs_to_the_app_alone(self) -> None:
        """A file with a general name would take the place of a site's own.

        Django's admin is given one addition to its own page, under its own name: that is what an app may replace.
        """
        for name in tracked():
            parts = Path(name).parts
            if parts[1] in {"templates", "static"}:
                assert parts[2] == "sipgate_provider", name


class TestMetadata:
    def test_is_complete(self, wheel: Path) -> None:
        said = metadata(wheel)
        assert said["Name"] == "django-sipgate-provider"
        assert said["Requires-Python"] == ">=3.11"
        assert said["License-Expression"] == "Unlicense"
        assert said["Description-Content-Type"] == "text/markdown"
        assert len(said.get_payload()) > 1000
        assert said.get_all("Provides-Extra") == ["metrics"]
        named = {
            line.partition(" ")[0].partition(">")[0].partition("<")[0]
            for line in said.get_all("Requires-Dist")
        }
        assert {name.partition("[")[0].lower() for name in named} == {
            "django",
            "django-allauth",
            "requests",
            "urllib3",
            "cryptography",
            "prometheus-client",
        }

    def test_addresses_are_real_ones(self, wheel: Path) -> None:
        addresses = [
            line.partition(", ")[2] for line in metadata(wheel).get_all("Project-URL") or ()
        ]
        assert addresses
        assert all(
            one.startswith("https://") and "example" not in one and "<" not in one
            for one in addresses
        )

    def test_versions_agree(self, wheel: Path, python: Path, tmp_path: Path) -> None:
        declared = tomllib.loads((foreign.ROOT / "pyproject.toml").read_text())["project"][
            "version"
        ]
        code = "import importlib.metadata as m; print(m.version('django-sipgate-provider'))"
        assert metadata(wheel)["Version"] == declared
        assert foreign.run(python, "-c", code, cwd=tmp_path).stdout.strip() == declared


class TestForeignSite:
    def test_sees_the_installed_app_and_nothing_of_this_project(
        self, foreign_site: Foreign
    ) -> None:
        site = foreign_site()
        names = [
            "sipgate_project",
            "sipgate_sandbox",
            "tests",
            "bench",
            "templates",
            "csp",
            "prometheus_client",
        ]
        where, *found = site.python_says(
            "import importlib.util, sipgate_provider; print(sipgate_provider.__file__); "
            f"print(*(name for name in {names} if importlib.util.find_spec(name)))"
        ).split()
        assert found == []
        assert Path(where).is_relative_to(site.python.parents[1])
        assert not Path(where).is_relative_to(foreign.ROOT)

    def test_goes_from_installation_to_disconnection(self, foreign_site: Foreign) -> None:
        site = foreign_site()
        assert "no issues" in site.manage(
            "check", "--database", "default", "--fail-level", "WARNING"
        )
        site.manage("migrate")
        site.manage("makemigrations", "--check", "--dry-run")
        with site.process("manage.py", "runserver", "--noreload", f"127.0.0.1:{site.port}"):
            foreign.Visitor(site).walk()
        log = site.log.read_text()
        assert "Traceback" not in log
        assert "Warning" not in log

    def test_shows_problems_with_the_apps_own_pages(self, foreign_site: Foreign) -> None:
        site = foreign_site()
        with site.serving() as visitor:
            denied = visitor.get(visitor.consent(visitor.authorize_url(), allow=False))
            assert (denied.status_code, "The sign-in was cancelled" in denied.text) == (401, True)
            assert "Sign in with sipgate" in denied.text
            stale = visitor.get("/oauth?state=of-yesterday&code=x")
            assert (stale.status_code, "does not belong to this browser session" in stale.text) == (
                401,
                True,
            )
            site.sandbox.control.fault("unauthorized-client", on="token")
            ours = visitor.sign_in()
            assert (ours.status_code, "not set up correctly" in ours.text) == (401, True)
            assert visitor.sign_in().status_code == 200
            site.sandbox.control.fault("unavailable", on="account", times=None)
            down = visitor.get("/company")
            assert (down.status_code, "sipgate cannot be reached" in down.text) == (503, True)
            site.sandbox.control.clear()
            # the problem page's own button leads to sipgate: it is a form that works in any site
            site.sandbox.control.kill_session()
            site.sandbox.control.expire_access()
            ended = visitor.get("/company")
            assert (ended.status_code, "sign in again" in ended.text) == (403, True)
            (action,) = set(re.findall(r'action="([^"]*sipgate/login[^"]*)"', ended.text))
            assert action == "/accounts/sipgate/login/?process=connect&amp;next=%2Fcompany"
        assert "Traceback" not in site.log.read_text()

    def test_leads_who_has_no_connection_to_sipgate_and_back(self, foreign_site: Foreign) -> None:
        site = foreign_site()
        with site.serving() as visitor:
            asked = visitor.get("/guarded")
            assert urlsplit(asked.url).path == "/accounts/login/"
            visitor.sign_in()
            assert visitor.get("/guarded").json() == {"company": "Rosenduft Gartenbau GmbH"}
            visitor.disconnect()
            connect = visitor.get("/guarded")
            assert urlsplit(connect.url).path == "/accounts/sipgate/login/"
            answer = visitor.post(connect.url, allow_redirects=False)
            back = visitor.get(visitor.consent(answer.headers["Location"]))
            assert (urlsplit(back.url).path, back.json()) == (
                "/guarded",
                {"company": "Rosenduft Gartenbau GmbH"},
            )
        assert "Traceback" not in site.log.read_text()
