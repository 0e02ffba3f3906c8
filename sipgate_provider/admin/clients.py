"""Clients that a site keeps in its database (``SocialApp`` rows, of any provider): a secret is written, never shown."""

from __future__ import annotations

from typing import Any

from allauth.socialaccount.admin import SocialAppAdmin, SocialAppForm
from django import forms
from django.utils.translation import gettext_lazy

SECRETS = ("secret", "key")


class ClientForm(SocialAppForm):
    class Meta(SocialAppForm.Meta):
        help_texts = dict.fromkeys(
            SECRETS, gettext_lazy("Never shown. Leave it empty to keep the current value.")
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in SECRETS:
            self.fields[name].widget = forms.PasswordInput(
                attrs={"size": "100", "autocomplete": "off"}
            )
        # An empty field means "unchanged", and the row's history must not say otherwise.
        self.initial.update(dict.fromkeys(SECRETS, ""))

    def clean_secret(self) -> str:
        return str(self.cleaned_data["secret"] or self.instance.secret)

    def clean_key(self) -> str:
        return str(self.cleaned_data["key"] or self.instance.key)


class ClientAdmin(SocialAppAdmin):
    form = ClientForm
