"""Fixtures for tests of a site.

pytest loads this module in every environment that has the package, so it imports nothing before a
test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sipgate_provider.testing import FakeSipgate, Sandbox


@pytest.fixture
def sipgate() -> Iterator[FakeSipgate]:
    """A fake sipgate that answers as the test says; ``sipgate.connect(user)`` connects a user."""
    from sipgate_provider.testing import fake_sipgate

    with fake_sipgate() as fake:
        yield fake


@pytest.fixture(scope="session")
def _sipgate_sandbox_process() -> Iterator[Any]:
    from sipgate_provider.testing import redirect_uri
    from sipgate_sandbox.launch import launch

    with launch("--redirect-uri", redirect_uri()) as running:
        yield running


@pytest.fixture
def sipgate_sandbox(_sipgate_sandbox_process: Any, transactional_db: None) -> Iterator[Sandbox]:
    """A fresh sandbox; ``sipgate_sandbox.sign_in(client)`` signs in with one of its people."""
    from sipgate_provider.testing import pointed_at
    from sipgate_sandbox.launch import sign_in

    with pointed_at(_sipgate_sandbox_process, sign_in) as sandbox:
        yield sandbox
