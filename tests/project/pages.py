"""Reads the project's Markdown: blocks of code, headings and tables, for tests that hold them against the code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)[ \t]*$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: ``line`` is where its first line stands in the page, ``heading`` the last one above it."""

    page: str
    line: int
    language: str
    text: str
    heading: str = ""

    @property
    def name(self) -> str:
        """What the first line's comment calls it: the file that it belongs into, or ``""``."""
        found = re.match(r"(?:# |\{# )([\w./-]+\.(?:py|html|toml))\b", self.text)
        return found[1] if found else ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(page: Path) -> list[Block]:
    """Return the page's fenced blocks, without the indentation of the list they stand in.

    Raises:
        ValueError: a fence is not closed.
    """
    found: list[Block] = []
    heading = ""
    inside: tuple[int, str, str, list[str]] | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if inside is None and fence:
            inside = (number + 1, fence["language"], fence["indent"], [])
        elif inside and fence and not fence["language"]:
            start, language, _indent, lines = inside
            found.append(
                Block(
                    str(page.relative_to(ROOT)), start, language, "\n".join(lines) + "\n", heading
                )
            )
            inside = None
        elif inside is None and line.startswith("#"):
            heading = line.lstrip("# ")
        elif inside:
            inside[3].append(line.removeprefix(inside[2]))
    if inside:
        raise ValueError(f"{page}: the fence before line {inside[0]} is not closed.")
    return found


def section(page: Path, heading: str) -> str:
    """Return what stands below ``heading`` (with its #s) up to the next one of that level or above."""
    level = heading.split(" ")[0]
    text = page.read_text(encoding="utf-8")
    start = re.search(rf"^{re.escape(heading)}$", text, flags=re.MULTILINE)
    if start is None:
        raise ValueError(f"{page} has no heading {heading!r}.")
    rest = text[start.end() :]
    end = re.search(rf"^#{{1,{len(level)}}} ", rest, flags=re.MULTILINE)
    return rest[: end.start()] if end else rest


def is_row(line: str) -> bool:
    return line.startswith("|")


def table(text: str) -> list[list[str]]:
    """Return the rows of the first table in ``text``, without head; cells as they are written."""
    lines = list(takewhile(is_row, dropwhile(lambda line: not is_row(line), text.splitlines())))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]
