"""The package as it is built, and environments it is installed into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sipgate_sandbox.launch import Running, launch
from tests.package import foreign


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel."""
    return foreign.build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def wheel(built: tuple[Path, Path]) -> Path:
    return built[1]


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it asks for, nothing else; versions as this project has them pinned."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    return foreign.environment(folder, str(wheel), constraints=foreign.ROOT / "requirements.txt")


@pytest.fixture(scope="session")
def _foreign_sandbox() -> Iterator[tuple[Running, int]]:
    port = foreign.free_port()
    origin = f"http://localhost:{port}"
    with launch(
        "--redirect-uri",
        f"{origin}/oauth",
        "--redirect-uri",
        f"{origin}/accounts/sipgate/login/callback/",
    ) as sandbox:
        yield sandbox, port


Foreign = Callable[..., foreign.ForeignSite]


@pytest.fixture
def foreign_site(_foreign_sandbox: tuple[Running, int], python: Path, tmp_path: Path) -> Foreign:
    """Make a foreign site with these lines added to its settings."""
    sandbox, port = _foreign_sandbox
    sandbox.control.reset(people=True)

    def make(
        settings: str = "", *, prepare: str = "", python: Path = python
    ) -> foreign.ForeignSite:
        return foreign.ForeignSite(
            tmp_path / "site",
            python=python,
            port=port,
            sandbox=sandbox,
            settings=settings,
            prepare=prepare,
        )

    return make
