"""docs/comparison.md: each row names its sources; those that are installed here, and our tests, are where it says."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import allauth
import pytest

from tests.project.pages import ROOT, section, table

PAGE = ROOT / "docs" / "comparison.md"
ROOTS = {"allauth": Path(allauth.__file__).parents[1], "tests": ROOT}


def notes() -> dict[int, str]:
    """Return what stands below each number."""
    parts = re.split(r"^(\d+)\. ", section(PAGE, "## Sources"), flags=re.MULTILINE)[1:]
    return {
        int(number): " ".join(text.split())
        for number, text in zip(parts[::2], parts[1::2], strict=True)
    }


def test_every_line_of_the_table_has_its_note() -> None:
    rows = table(PAGE.read_text(encoding="utf-8"))
    numbers = [int(row[0].partition(" ")[0]) for row in rows]
    assert numbers == list(notes()) == list(range(1, len(rows) + 1))
    assert all(len(row) == 6 and all(row) for row in rows)


@pytest.mark.parametrize("number", notes())
def test_what_a_note_names_is_there(number: int) -> None:
    """A word in code after a path is in that file. Packages that are not installed here were read by hand."""
    for clause in notes()[number].split(";"):
        file: Path | None = None
        for word in re.findall(r"`([^`]+)`", clause):
            if "/" in word:
                root = ROOTS.get(word.partition("/")[0])
                file = root / word if root else None
                assert file is None or file.exists(), word
            elif file and file.is_file():
                name = word.partition(" ")[0].partition("=")[0].rpartition(".")[2]
                assert re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")), (
                    f"{word} is not in {file}"
                )
    assert "this app: `tests/" in notes()[number]


def test_allauth_is_the_one_that_was_read() -> None:
    (read,) = re.findall(r"django-allauth (\d+\.\d+)\.\d+", PAGE.read_text(encoding="utf-8"))
    assert version("django-allauth").startswith(f"{read}.")
