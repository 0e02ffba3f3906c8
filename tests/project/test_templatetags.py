"""The tags of the site's own pages say what Django's say."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.template import engines
from django.utils import timezone, translation

from sipgate_project.templatetags.site import moment


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize(
    "tag",
    [
        '{% trans "Sign in" %}',
        '{% trans "100 % <b>sure</b>" %}',
        '{% trans "Sign in" as words %}{{ words }}',
        '{% trans "Sign in"|upper %}',
        '{% trans "May" context "abbrev. month" %}',
        "{% trans words %}",
        '{% trans "Sign in" noop %}',
    ],
)
def test_words_are_those_of_django(language: str, tag: str) -> None:
    site, django = (
        engines["django"].from_string(f"{{% load {tags} %}}{tag}") for tags in ("i18n site", "i18n")
    )
    with translation.override(language):
        assert site.render({"words": "Sign up <now>"}) == django.render({"words": "Sign up <now>"})


def test_words_are_translated_for_each_reader() -> None:
    template = engines["django"].from_string('{% load i18n site %}{% trans "Sign in" %}')
    for language, words in (("en", "Sign in"), ("de", "Anmelden"), ("en", "Sign in")):
        with translation.override(language):
            assert template.render() == words


def test_a_moment_is_relative_and_exact() -> None:
    at = timezone.now() - timedelta(hours=2)
    with timezone.override("Europe/Berlin"), translation.override("de"):
        text = moment(at)
        local = timezone.localtime(at)
    assert "vor 2 Stunden</time>" in text
    assert f'datetime="{local.isoformat()}" title="{local.day}. ' in text
    assert datetime.fromisoformat(text.split('"')[1]) == at


def test_there_may_be_no_moment() -> None:
    assert moment(None) == "–"
