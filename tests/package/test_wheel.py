"""What is in the package, and that it is all a foreign site needs."""

from __future__ import annotations

import re
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.package import foreign

PACKAGES = ("sipgate_provider", "sipgate_sandbox")
OF_A_SOURCE = {"LICENSE", "README.md", "PKG-INFO", "pyproject.toml", "setup.cfg"}


def test_wheel_and_source_distribution_hold_app_and_sandbox_and_nothing_else(built):
    with tarfile.open(built[0]) as source:
        names = {one.name.partition("/")[2] for one in source.getmembers() if one.isfile()}
    assert without("django_sipgate_provider.egg-info/", names) == tracked() | OF_A_SOURCE
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    assert without("django_sipgate_provider-", names) == tracked()


def test_every_template_and_static_file_belongs_to_the_app_alone():
    """A file with a general name would take the place of a site's own."""
    for name in tracked():
        parts = Path(name).parts
        if parts[1] in {"templates", "static"}:
            assert parts[2] in {"sipgate_provider", "sandbox"}, name


def test_the_installed_package_is_not_this_checkout(python, tmp_path):
    project = tomllib.loads((foreign.ROOT / "pyproject.toml").read_text())["project"]
    version, place, others = spec(python, tmp_path, *foreign.NOT_SOURCES)
    assert (version, others) == (project["version"], "[]")
    assert Path(place).is_relative_to(python.parents[1])


def test_the_tests_run_after_a_build_in_this_folder():
    """A build leaves metadata here; pytest then finds the plugin that the tests load as well."""
    project = tomllib.loads((foreign.ROOT / "pyproject.toml").read_text())
    for name, module in project["project"]["entry-points"]["pytest11"].items():
        assert name == module
        assert f"-p {module} " in project["tool"]["pytest"]["ini_options"]["addopts"]


def test_what_the_site_needs_is_pinned():
    """``make check`` only sees pins that contradict the ranges, not one that is missing."""
    project = tomllib.loads((foreign.ROOT / "pyproject.toml").read_text())
    needed = [*project["project"]["dependencies"], *project["dependency-groups"]["site"]]
    names = {re.match(r"[\w-]+", one)[0].lower() for one in needed}
    lines = (foreign.ROOT / "requirements.txt").read_text().splitlines()
    assert names <= {line.partition("==")[0] for line in lines if "==" in line}


def test_classifiers_are_what_the_readme_says():
    project = tomllib.loads((foreign.ROOT / "pyproject.toml").read_text())["project"]
    readme = (foreign.ROOT / "README.md").read_text(encoding="utf-8")
    versions = [line.split(" :: ")[-1] for line in project["classifiers"]]
    pythons = [one for one in versions if re.match(r"3\.\d", one)]
    djangos = [one for one in versions if re.match(r"[5-9]\.\d", one)]
    assert f"Supported: Python {pythons[0]} to {pythons[-1]};" in readme
    assert f"Django {', '.join(djangos[:-1])} and {djangos[-1]}" in readme


@pytest.mark.long
def test_it_asks_for_all_it_needs(wheel, tmp_path):
    python = foreign.environment(tmp_path / "venv", str(wheel), index=True)
    assert spec(python, tmp_path, "csp", "whitenoise")[2] == "[]", "what only our site needs"
    foreign.run(python, "-m", "sipgate_sandbox", "--help", cwd=tmp_path)


@pytest.mark.long
def test_the_package_index_would_take_both(built, tmp_path):
    foreign.run(foreign.UV, "tool", "run", "twine", "check", "--strict", *built, cwd=tmp_path)


def spec(python: Path, folder: Path, *modules: str) -> list[str]:
    """Return version and place of the installed package, and which of these modules are there."""
    code = (
        "import importlib.metadata, importlib.util, sipgate_provider\n"
        "print(importlib.metadata.version('django-sipgate-provider'))\n"
        "print(sipgate_provider.__file__)\n"
        f"print([name for name in {modules} if importlib.util.find_spec(name)])"
    )
    return foreign.run(python, "-c", code, cwd=folder).stdout.splitlines()


def tracked() -> set[str]:
    """Return the packages' files as the repository has them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES]
    listed = subprocess.run(command, cwd=foreign.ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


def without(beginning: str, names: set[str]) -> set[str]:
    return {name for name in names if not name.startswith(beginning)}
