"""Every language is complete: nothing untranslated, fuzzy or forgotten, compiled as written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import allauth
import polib
import pytest
from django.conf import settings
from django.utils import translation
from django.utils.translation.trans_real import translation as translation_object

from tests import tools

ROOT = Path(__file__).resolve().parents[2]
APPS = ("sipgate_provider", "sipgate_project")
LANGUAGES = [code for code, _ in settings.LANGUAGES if code != settings.LANGUAGE_CODE]
WORDING = [f"sipgate_project/wording/{code}" for code, _ in settings.LANGUAGES]
CATALOGUES = [f"{app}/locale/{code}" for app in APPS for code in LANGUAGES]
FAMILIAR = re.compile(
    r"\b(du|dich|dir|dein\w*|euch|eure\w*)\b|\bbitte (bestätige|versuche|wähle|gib|lass)\b", re.I
)


@pytest.mark.parametrize("name", CATALOGUES)
def test_everything_is_translated(name):
    found = catalogue(name)
    assert not [entry.msgid for entry in found.untranslated_entries() + found.fuzzy_entries()]
    assert len(found) > 100
    for entry in found:
        for text in filter(None, [entry.msgstr, *entry.msgstr_plural.values()]):
            assert placeholders(text) == placeholders(entry.msgid)


@pytest.mark.parametrize("name", [*CATALOGUES, *WORDING])
def test_compiled_is_what_is_written(name):
    compiled = polib.mofile(str(ROOT / name / "LC_MESSAGES/django.mo"))
    assert texts(compiled) == texts(catalogue(name)), "run make messages"


def test_nothing_is_forgotten(tmp_path):
    """Collecting anew finds no word that the catalogues do not have."""
    tools.needed("xgettext", package="gettext")
    ignore = shutil.ignore_patterns("__pycache__", "*.mo")
    for name in (*APPS, "templates"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    shutil.copy(ROOT / "manage.py", tmp_path)
    plain = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    collect = [sys.executable, "manage.py", "makemessages", "--no-location", "--no-wrap"]
    languages = [word for code in LANGUAGES for word in ("-l", code)]
    subprocess.run([*collect, *languages], cwd=tmp_path, env=plain, check=True, capture_output=True)
    for name in CATALOGUES:
        assert ids(catalogue(name, tmp_path)) == ids(catalogue(name)), f"{name}: run make messages"


def test_german_says_sie():
    """In everything that can be shown: this site's catalogues over allauth's and Django's."""
    off = {
        entry.msgid
        for entry in polib.pofile(f"{allauth.__path__[0]}/locale/de/LC_MESSAGES/django.po")
        if not any(is_shown(path) for path, _line in entry.occurrences)
    }
    with translation.override("de"):
        merged = translation_object("de")._catalog
    keys = {key for one in merged._catalogs for key in one}
    shown = {key: merged[key] for key in keys if isinstance(merged[key], str) and key not in off}
    assert len(shown) > 1000
    assert not {key: text for key, text in shown.items() if FAMILIAR.search(text)}


def is_shown(path: str) -> bool:
    """Tell whether the site shows texts of this file of allauth."""
    parts = ("mfa", "idp", "phone", "email_change", "passkey", "verified_email_required")
    return not any(part in path for part in parts) and not (ROOT / path).exists()


def catalogue(name: str, root: Path = ROOT) -> polib.POFile:
    return polib.pofile(str(root / name / "LC_MESSAGES/django.po"))


def ids(found: polib.POFile) -> set[tuple[str | None, str]]:
    return {(entry.msgctxt, entry.msgid) for entry in found if not entry.obsolete}


def texts(entries: polib.POFile | polib.MOFile) -> dict[tuple[str | None, str], object]:
    return {
        (entry.msgctxt, entry.msgid): entry.msgstr or dict(entry.msgstr_plural) for entry in entries
    }


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"%\(\w+\)s|<a [^>]*>", text))
