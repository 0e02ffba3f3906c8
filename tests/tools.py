"""Programs that some tests need. If one is missing, CI fails; a person's run goes on."""

from __future__ import annotations

import os
import shutil

import pytest


def needed(*names: str, package: str) -> str:
    """Return the path of the first program of ``names`` that there is."""
    for name in names:
        if path := shutil.which(name):
            return path
    text = f"{names[0]} is needed: install the package {package}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)
