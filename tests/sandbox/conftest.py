"""Somebody who uses the sandbox without the site."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sipgate_sandbox.launch import Running
from tests.sandbox.visitor import Visitor


@pytest.fixture
def visitor(sandbox: Running) -> Iterator[Visitor]:
    one = Visitor(sandbox)
    yield one
    one.close()
