"""What README, docs and .env.example name exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from django.core.management import get_commands

from sipgate_project.env import NAMES
from tests.project.pages import ROOT, pages, section, table

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_example_file_explains_every_variable_once() -> None:
    lines = text(".env.example").splitlines()
    assert sorted(re.findall(r"^([A-Z_]+)=", "\n".join(lines), re.M)) == sorted(NAMES)
    for before, line in zip(["", *lines], lines, strict=False):
        assert not line or line.startswith("#") or re.match(r"# |[A-Z_]+=", before), line


def test_variables_that_a_document_sets_exist() -> None:
    for page in pages():
        said = page.read_text(encoding="utf-8")
        assert set(re.findall(r"^ *([A-Z_]{4,})=[^=]", said, re.M)) <= NAMES, page.name


def test_commands_that_a_document_names_exist() -> None:
    for page in pages():
        said = page.read_text(encoding="utf-8")
        assert set(re.findall(r"`make ([a-z-]+)", said)) <= TARGETS, page.name
        assert set(re.findall(r"manage\.py (sipgate_\w+)", said)) <= set(get_commands()), page.name


def test_files_that_a_document_names_exist() -> None:
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


def test_links_lead_to_a_file_and_a_heading() -> None:
    """As ``make docs`` does, but in no time."""
    for page in pages():
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if "://" in link:
                continue
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.is_file(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_the_readme_lists_every_page() -> None:
    listed = re.findall(r"^\| \[[^\]]+\]\(docs/([\w-]+\.md)\)", text("README.md"), re.M)
    assert set(listed) == {path.name for path in ROOT.glob("docs/*.md")}


def test_every_make_target_is_described() -> None:
    described = set(re.findall(r"^([a-z-]+):.*##", text("Makefile"), re.M)) - {"help", "clean"}
    assert described <= set(re.findall(r"`make ([a-z-]+)", text("CONTRIBUTING.md")))


def test_every_dependency_has_a_reason() -> None:
    project = tomllib.loads(text("pyproject.toml"))
    groups = project["dependency-groups"]
    wanted = [*project["project"]["dependencies"], *groups["site"], *groups["dev"]]
    names = {re.split(r"[^A-Za-z0-9-]", word)[0].lower() for word in wanted}
    with_reason = text("CONTRIBUTING.md").partition("| package | why |")[2].lower()
    assert names <= set(re.findall(r"[a-z0-9-]+", with_reason))


def test_messages_that_the_operator_page_explains_are_shown() -> None:
    code = sources("sipgate_project", "sipgate_provider", "sipgate_sandbox", "templates")
    rows = table(section(ROOT / "docs" / "operate.md", "## When something is wrong"))
    messages = [message for row in rows for message in re.findall(r"[*`]([^*`]+)[*`]", row[0])]
    assert len(messages) >= 6
    for message in messages:
        assert all(part.strip() in code for part in re.split(r"\b\d+\b", message)), message


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def sources(*folders: str) -> str:
    """Return all code and templates as one line without quotes, so that split texts are found."""
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*"))]
    kept = [file for file in files if file.suffix in {".py", ".html", ".txt"}]
    joined = " ".join(file.read_text(encoding="utf-8") for file in kept)
    return re.sub(r'"?\s+f?"|\s+', " ", joined)
