"""How the site's pages show a moment."""

from datetime import datetime, timedelta

from django.utils import timezone, translation

from sipgate_project.templatetags.site import moment


def test_a_moment_is_relative_and_exact():
    at = timezone.now() - timedelta(hours=2)
    with timezone.override("Europe/Berlin"), translation.override("de"):
        text = moment(at)
        local = timezone.localtime(at)
    assert "vor 2 Stunden</time>" in text
    assert f'datetime="{local.isoformat()}" title="{local.day}. ' in text
    assert datetime.fromisoformat(text.split('"')[1]) == at


def test_there_may_be_no_moment():
    assert moment(None) == "–"
