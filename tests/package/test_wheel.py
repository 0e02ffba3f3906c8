"""What is in the package, and that it is all a foreign site needs."""

from __future__ import annotations

import email
import re
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import requests

from tests.package import foreign

README = (foreign.ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = ("sipgate_provider", "sipgate_sandbox")


def test_the_package_index_would_take_both(built: tuple[Path, Path], tmp_path: Path) -> None:
    foreign.run(foreign.UV, "tool", "run", "twine", "check", "--strict", *built, cwd=tmp_path)


class TestContents:
    def test_the_wheel_holds_app_and_sandbox_and_nothing_else(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        info = {name for name in names if name.startswith("django_sipgate_provider-")}
        assert names - info == tracked()
        assert {name.partition("/")[2] for name in info} == {
            "METADATA",
            "RECORD",
            "WHEEL",
            "top_level.txt",
            "entry_points.txt",
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

    def test_the_sandbox_starts_in_any_folder(self, python: Path, tmp_path: Path) -> None:
        """Needs the extra ``sandbox``, whose only package allauth brings as well."""
        command = [str(python), "-m", "sipgate_sandbox", "serve", "--port", "0"]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            assert "Rosa Gärtner" in requests.get(url, timeout=20).text
            process.terminate()
        assert process.returncode == 0
        assert (tmp_path / "sandbox.sqlite3").exists()

    def test_every_template_and_static_file_belongs_to_the_app_alone(self) -> None:
        """A file with a general name would take the place of a site's own."""
        for name in tracked():
            parts = Path(name).parts
            if parts[1] in {"templates", "static"}:
                assert parts[2] in {"sipgate_provider", "sandbox"}, name


class TestMetadata:
    def test_is_complete(self, wheel: Path) -> None:
        said = metadata(wheel)
        assert said["Name"] == "django-sipgate-provider"
        assert said["Requires-Python"] == ">=3.11"
        assert said["License-Expression"] == "Unlicense"
        assert said["Description-Content-Type"] == "text/markdown"
        assert len(said.get_payload()) > 1000
        assert said.get_all("Provides-Extra") == ["sandbox"]
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
            "cattrs",
            "prometheus-client",
            "pyjwt",
        }

    def test_classifiers_are_what_the_readme_says(self, wheel: Path) -> None:
        said = metadata(wheel).get_all("Classifier")
        (supported,) = re.findall(r"^Supported: Python (.*?);.*", README, re.MULTILINE)
        pythons = [line.rpartition(" ")[2] for line in said if re.search(r"Python :: 3\.\d", line)]
        djangos = [line.rpartition(" ")[2] for line in said if "Django :: " in line]
        assert supported == f"{pythons[0]} to {pythons[-1]}"
        assert f"Django {', '.join(djangos[:-1])} and {djangos[-1]}" in README
        assert "Operating System :: POSIX :: Linux" in said

    def test_addresses_are_real_ones(self, wheel: Path) -> None:
        addresses = [
            line.partition(", ")[2] for line in metadata(wheel).get_all("Project-URL") or ()
        ]
        assert addresses
        assert all(
            one.startswith("https://") and "example" not in one and "<" not in one
            for one in addresses
        )

    def test_the_installed_package_is_all_there_is(self, python: Path, tmp_path: Path) -> None:
        """A foreign site reaches nothing of this checkout, and no package that only this site needs."""
        names = [*foreign.NOT_SOURCES, "csp", "whitenoise"]
        code = (
            "import importlib.metadata, importlib.util, sipgate_provider\n"
            "print(importlib.metadata.version('django-sipgate-provider'))\n"
            "print(sipgate_provider.__file__)\n"
            f"print([name for name in {names} if importlib.util.find_spec(name)])"
        )
        version, place, others = foreign.run(python, "-c", code, cwd=tmp_path).stdout.splitlines()
        project = tomllib.loads((foreign.ROOT / "pyproject.toml").read_text())["project"]
        assert version == project["version"]
        assert Path(place).is_relative_to(python.parents[1])
        assert others == "[]"


def tracked() -> set[str]:
    """Return the packages' files as the repository has them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
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
