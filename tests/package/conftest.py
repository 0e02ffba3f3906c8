"""The package as it is built, and environments it is installed into."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    """An environment with the wheel."""
    return foreign.environment(tmp_path_factory.mktemp("environment") / "venv", str(wheel))
