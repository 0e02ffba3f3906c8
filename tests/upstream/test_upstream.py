"""allauth's provider test mixin passes against this provider."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def test_allauths_own_provider_tests_pass(source, tmp_path):
    # Outside of this package: upstream's package is called tests, too, and comes first there.
    for name in ("mixin_settings.py", "upstream_urls.py", "mixin_case.py"):
        shutil.copy(HERE / name, tmp_path)
    ours = ("DJANGO_SETTINGS_MODULE", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (tmp_path, source, ROOT)))
    plugins = ("-p", "no:randomly", "-p", "no:cacheprovider", "--ds=mixin_settings")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-c",
            os.devnull,
            *plugins,
            tmp_path / "mixin_case.py",
        ],
        env=environment,
        cwd=source,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "6 passed" in done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The source distribution of the installed allauth, unpacked."""
    wanted = f"django-allauth=={metadata.version('django-allauth')}"
    # Only allauth from source: what reads its version (its build backend) comes as a wheel, in an
    # environment of its own. Ours would take the version for 0.0.0.
    options = ("--quiet", "--no-deps", "--no-binary", "django-allauth", "--dest", tmp_path)
    command = [sys.executable, "-m", "pip", "download", *options, wanted]
    isolated = {name: one for name, one in os.environ.items() if name != "PIP_NO_BUILD_ISOLATION"}
    subprocess.run(command, env=isolated, check=True, timeout=100)
    [archive] = tmp_path.glob("*.tar.gz")
    subprocess.run(["tar", "-xf", archive], cwd=tmp_path, check=True)
    return archive.with_suffix("").with_suffix("")
