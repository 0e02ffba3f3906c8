"""German is complete: nothing untranslated, nothing fuzzy, nothing forgotten, and compiled as it is written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polib
import pytest
from django.utils import translation
from django.utils.translation.trans_real import translation as translation_object

from tests import tools

ROOT = Path(__file__).resolve().parents[2]
APPS = ("sipgate_provider", "sipgate_project")


def catalogue(app: str, root: Path = ROOT) -> polib.POFile:
    return polib.pofile(str(root / app / "locale/de/LC_MESSAGES/django.po"))


@pytest.mark.parametrize("app", APPS)
def test_everything_is_translated(app: str) -> None:
    found = catalogue(app)
    assert not [entry.msgid for entry in found.untranslated_entries() + found.fuzzy_entries()]
    assert len(found) > 100


@pytest.mark.parametrize("app", APPS)
def test_placeholders_are_kept(app: str) -> None:
    for entry in catalogue(app):
        for text in [entry.msgstr, *entry.msgstr_plural.values()]:
            if text:
                assert set(re.findall(r"%\(\w+\)s|<a [^>]*>", text)) == set(
                    re.findall(r"%\(\w+\)s|<a [^>]*>", entry.msgid)
                )


@pytest.mark.parametrize("app", APPS)
def test_compiled_is_what_is_written(app: str) -> None:
    compiled = polib.mofile(str(ROOT / app / "locale/de/LC_MESSAGES/django.mo"))

    def texts(entries: polib.POFile | polib.MOFile) -> dict[tuple[str | None, str], object]:
        return {
            (entry.msgctxt, entry.msgid): entry.msgstr or dict(entry.msgstr_plural)
            for entry in entries
        }

    assert texts(compiled) == texts(catalogue(app)), "run make messages"


def test_nothing_is_forgotten(tmp_path: Path) -> None:
    """Collecting anew finds no word that the catalogues do not have."""
    tools.needed("xgettext", package="gettext")
    ignore = shutil.ignore_patterns("__pycache__", "*.mo")
    for name in (*APPS, "templates"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    shutil.copy(ROOT / "manage.py", tmp_path)
    before = {
        app: {(entry.msgctxt, entry.msgid) for entry in catalogue(app) if not entry.obsolete}
        for app in APPS
    }
    plain = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    collect = [
        sys.executable,
        "manage.py",
        "makemessages",
        "-l",
        "de",
        "--no-location",
        "--no-wrap",
    ]
    subprocess.run(collect, cwd=tmp_path, env=plain, check=True, capture_output=True)
    for app in APPS:
        assert {
            (entry.msgctxt, entry.msgid) for entry in catalogue(app, tmp_path) if not entry.obsolete
        } == before[app], f"{app}: run make messages"


def test_german_says_sie() -> None:
    """In everything that can be shown: this site's catalogues over allauth's and Django's."""
    with translation.override("de"):
        merged = translation_object("de")._catalog
    texts = {
        text
        for catalog in merged._catalogs
        for key in catalog
        for text in [merged[key]]
        if isinstance(text, str)
    }
    assert len(texts) > 1000
    familiar = re.compile(
        r"\b(du|dich|dir|dein\w*|euch|eure\w*)\b|\bbitte (bestätige|versuche|wähle|gib|lass)\b",
        re.I,
    )
    assert not sorted(text for text in texts if familiar.search(text))
