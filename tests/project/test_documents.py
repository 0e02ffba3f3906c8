"""What README, docs and .env.example name exists."""

from __future__ import annotations

import re

from sipgate_project.env import NAMES
from tests.project.pages import ROOT, pages, section, table

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def test_the_example_file_explains_every_variable_once():
    lines = text(".env.example").splitlines()
    assert sorted(re.findall(r"^([A-Z_]+)=", "\n".join(lines), re.M)) == sorted(NAMES)
    for before, line in zip(["", *lines], lines, strict=False):
        assert not line or line.startswith("#") or re.match(r"# |[A-Z_]+=", before), line


def test_variables_that_a_document_sets_exist():
    for page in pages():
        said = page.read_text(encoding="utf-8")
        assert set(re.findall(r"^ *([A-Z_]{4,})=[^=]", said, re.M)) <= NAMES, page.name


def test_targets_that_a_document_names_exist():
    for page in pages():
        said = page.read_text(encoding="utf-8")
        assert set(re.findall(r"`make ([a-z-]+)", said)) <= TARGETS, page.name


def test_files_that_a_document_names_exist():
    folders = r"sipgate_\w+|tests|templates|docs|bench|deploy"
    inside = r"tokens|sign_in|remote"
    for page in pages():
        said = page.read_text(encoding="utf-8")
        named = re.findall(rf"`((?:{folders})/[\w./-]*)`", said)
        named += [
            f"sipgate_provider/{one}" for one in re.findall(rf" ((?:{inside})/\w+\.py)", said)
        ]
        missing = [name for name in named if not (ROOT / name).exists() and name != "build/docs/"]
        assert missing == [], page.name


def test_messages_that_the_operator_page_explains_are_shown():
    code = sources("sipgate_project", "sipgate_provider", "sipgate_sandbox", "templates")
    rows = table(section(ROOT / "docs" / "operate.md", "## When something is wrong"))
    messages = [message for row in rows for message in re.findall(r"[*`]([^*`]+)[*`]", row[0])]
    assert len(messages) >= 6
    for message in messages:
        assert all(part.strip() in code for part in re.split(r"\b\d+\b", message)), message


def sources(*folders: str) -> str:
    """Return all code and templates as one line without quotes, so that split texts are found."""
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*"))]
    kept = [file for file in files if file.suffix in {".py", ".html", ".txt"}]
    joined = " ".join(file.read_text(encoding="utf-8") for file in kept)
    return re.sub(r'"?\s+f?"|\s+', " ", joined)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
