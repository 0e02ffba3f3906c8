"""Nothing is called by a word that was given up: each thing has one name, in code and in text."""

from __future__ import annotations

import re
import subprocess

from tests.project.pages import ROOT

INSTEAD = {
    r"refus(?:e|es|ed|ing|als?)": "reject (what sipgate does to a token or a client), or say what happens",
    r"renew(?:s|ed|ing|als?)?": "refresh",
    r"generations?": "version",
    r"(?:token|late|stale|new|newest|newer|old) pairs?|pairs? of tokens": "tokens",
    r"token rows?": "row, or stored tokens",
    r"suspects?|in flight": "unanswered",
    r"keepers?": "tokens",
    r"upkeep": "keepalive",
    r"lock owners?|lease owners?": "lease holder",
    r"e-mails?": "email",
}
"""Word, as it stands in text → what to say instead."""
OF_OTHERS = re.compile(
    r"connections? refused(?: error)?|smtp ?recipients refused|(?:sipgate|social) token rows"
)
"""What the network, Python and allauth call so."""
READ = {
    ".py",
    ".md",
    ".html",
    ".txt",
    ".css",
    ".js",
    ".toml",
    ".yml",
    ".service",
    ".timer",
    ".conf",
}
NOT_OURS = ("requirements", "tests/project/test_words.py", "docs/_")


def test_no_word_that_was_given_up():
    found = []
    for name in tracked():
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
            text = OF_OTHERS.sub("", plain(line))
            found += [
                f"{name}:{number}: {match[0]!r}; say: {instead}"
                for word, instead in INSTEAD.items()
                if (match := re.search(rf"\b(?:{word})\b", text))
            ]
    assert not found, "\n".join(found)


def plain(line: str) -> str:
    """Return a line as words: ``RefusedToken`` and ``refused_token`` become ``refused token``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", line).lower()


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [*listed.stdout.splitlines(), ".env.example"]
    return [
        name
        for name in dict.fromkeys(names)
        if (ROOT / name).is_file()
        and ((ROOT / name).suffix in READ or name in {".env.example", "Makefile"})
        and not name.startswith(NOT_OURS)
    ]
