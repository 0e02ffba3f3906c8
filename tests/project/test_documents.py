"""What README, docs and .env.example say is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.core.management import get_commands

from sipgate_project.env import NAMES
from sipgate_provider.models import SipgateToken
from tests.project.pages import section, table

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_example_file_has_every_variable_once() -> None:
    names = re.findall(r"^([A-Z_]+)=", text(".env.example"), flags=re.MULTILINE)
    assert sorted(names) == sorted(NAMES)


def test_the_table_of_the_readme_has_every_variable() -> None:
    table = text("README.md").partition("## Configuration")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)) == sorted(NAMES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_exists(document: Path) -> None:
    said = document.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", said)) <= targets
    assert set(re.findall(r"manage\.py (sipgate_\w+)", said)) <= set(get_commands())
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", said)
    missing = [
        link for link in links if "://" not in link and not (document.parent / link).exists()
    ]
    assert not missing


def test_the_protocol_page_describes_every_column() -> None:
    said = section(ROOT / "docs" / "protocol.md", "## The columns of the token row")
    rows = table(said)
    described = [name for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(described) == sorted(field.name for field in SipgateToken._meta.fields)
    writers = set(re.findall(r"\*\*(\w+)\*\*:", said))
    written_by = [writers & set(re.findall(r"\w+", row[2])) for row in rows]
    assert all(written_by)
    assert set.union(*written_by) == writers


def test_every_make_target_is_described() -> None:
    described = set(re.findall(r"^([a-z-]+):.*##", text("Makefile"), flags=re.MULTILINE)) - {
        "help",
        "clean",
    }
    assert described <= set(
        re.findall(r"^\| `make ([a-z-]+)", text("CONTRIBUTING.md"), flags=re.MULTILINE)
    )


def sources(*folders: str) -> str:
    """Return all code and templates of these folders as one line without quotes, so that split texts are found."""
    files = [
        file
        for folder in folders
        for file in (ROOT / folder).rglob("*")
        if file.suffix in {".py", ".html", ".txt"}
    ]
    joined = " ".join(file.read_text(encoding="utf-8") for file in sorted(files))
    return re.sub(r'"?\s+f?"|\s+', " ", joined)


def test_messages_that_the_readme_explains_are_shown() -> None:
    code = sources("sipgate_project", "sipgate_provider", "sipgate_sandbox", "templates")
    table = text("README.md").partition("## Common issues")[2].partition("\n\nEvery")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 10
    for message in (message for row in rows for message in re.findall(r"[*`]([^*`]+)[*`]", row)):
        words = re.sub(r"\b\d+\b|…", "{", message).split("{")
        assert all(part.strip() in code for part in words), message


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_a_document_names_exist(document: str) -> None:
    named = re.findall(r"`((?:sipgate_\w+|tests|templates|docs|bench)/[\w./-]*)`", text(document))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_dependency_has_a_reason() -> None:
    import tomllib

    project = tomllib.loads(text("pyproject.toml"))
    words = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["site"],
        *project["dependency-groups"]["dev"],
    ]
    names = {re.match(r"[A-Za-z0-9-]+", word)[0].lower() for word in words}  # type: ignore[index]  # each has a name
    reasons = text("CONTRIBUTING.md").partition("## Dependencies")[2].partition("\n## ")[0].lower()
    assert not [
        name for name in names if not re.search(rf"(?<![a-z-]){re.escape(name)}(?![a-z-])", reasons)
    ]


def test_the_index_has_every_page() -> None:
    listed = re.findall(
        r"^\| \[[^\]]+\]\(([\w-]+\.md)\)", text("docs/README.md"), flags=re.MULTILINE
    )
    assert sorted(listed) == sorted(
        path.name for path in ROOT.glob("docs/*.md") if path.name != "README.md"
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_headings_that_a_document_links_to_exist(document: Path) -> None:
    for name, anchor in re.findall(
        r"\]\(([\w./-]*)#([^)]+)\)", document.read_text(encoding="utf-8")
    ):
        target = (document.parent / name) if name else document
        if "://" not in name:
            headings = re.findall(
                r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE
            )
            assert anchor in {
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
            }
