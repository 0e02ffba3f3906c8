"""allauth's provider test mixin passes against this provider."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def test_allauths_own_provider_tests_pass(source: Path, tmp_path: Path) -> None:
    # Outside of this package: upstream's package is called tests, too, and comes first there.
    for name in ("mixin_settings.py", "upstream_urls.py", "mixin_case.py"):
        shutil.copy(HERE / name, tmp_path)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(source), str(ROOT)]),
    }
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--rootdir",
            str(source),
            "-c",
            os.devnull,
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
            "--ds=mixin_settings",
            "-q",
            str(tmp_path / "mixin_case.py"),
        ],
        env=environment,
        cwd=source,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]
    assert "6 passed" in run.stdout


@pytest.fixture(scope="module")
def source() -> Path:
    """allauth's source distribution of the installed version, unpacked; kept in var/."""
    version = metadata.version("django-allauth")
    folder = ROOT / "var" / "upstream"
    unpacked = folder / f"django_allauth-{version}"
    if not (unpacked / "tests").is_dir():
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary",
                ":all:",
                f"django-allauth=={version}",
                "--dest",
                str(folder),
            ],
            check=True,
            timeout=100,
        )
        with tarfile.open(folder / f"django_allauth-{version}.tar.gz") as archive:
            # Python 3.11 learned of filters in its fourth release only.
            options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(folder, **options)  # type: ignore[arg-type]
    return unpacked
