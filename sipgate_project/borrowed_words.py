"""Texts of Django and allauth that this site translates in words of its own.

A catalogue of the site comes before theirs. The texts are listed here so that ``make messages`` finds them.
"""

from __future__ import annotations

from django.utils.translation import gettext_noop

TEXTS = (
    gettext_noop("Select Language"),
    gettext_noop("Skip to main content"),
    gettext_noop("Users"),
)
