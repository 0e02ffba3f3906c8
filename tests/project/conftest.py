"""A copy of the site, in which a test may write."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.project.pages import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Settings and sandbox find their folder by the place of their files: a link would lead back."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("sipgate_project", "sipgate_sandbox"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    for name in ("sipgate_provider", "templates"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "manage.py", tmp_path)
    return tmp_path
