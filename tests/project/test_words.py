"""Nothing is called by a word that was given up: each thing has one name, in code and in text."""

from __future__ import annotations

import re
import subprocess

from tests.project.pages import ROOT

INSTEAD = {
    r"refus(e|es|ed|ing|als?)": "reject (what sipgate does to a token or a client), or say what happens",
    r"renew(s|ed|ing|als?)?": "refresh",
    r"generations?": "version",
    r"(token|late|stale|new|newest|newer|old) pairs?|pairs? of tokens": "tokens",
    r"token rows?": "row, or stored tokens",
    r"suspects?|in flight": "unanswered",
    r"keepers?": "tokens",
    r"upkeep": "keepalive",
    r"(lock|lease) owners?": "lease holder",
    r"e-mails?": "email",
}
"""Word, as it stands in text → what to say instead."""
GIVEN_UP = re.compile(rf"\b({'|'.join(INSTEAD)})\b")
OF_OTHERS = r"connections? refused|smtp ?recipients ?refused|(sipgate|social) token rows"
"""What the network, Python and allauth call so."""
ELSEWHERE = ("*.po", "*.json", "requirements*", "docs/_*", "tests/project/test_words.py")


def test_no_word_that_was_given_up():
    command = ["git", "grep", "-n", "--untracked", "-I", "", "--"]
    listed = subprocess.run(
        [*command, *(f":!{one}" for one in ELSEWHERE)], cwd=ROOT, capture_output=True, text=True
    )
    found = [
        f"{word[0]!r} in {line[:160]}"
        for line in listed.stdout.splitlines()
        if (word := GIVEN_UP.search(re.sub(OF_OTHERS, "", as_words(line))))
    ]
    assert not found, "\n".join(found)


def as_words(line: str) -> str:
    """``RefusedToken`` and ``refused_token`` become ``refused token``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", line).lower()
