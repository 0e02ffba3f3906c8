"""A form that a site can name in allauth's ``ACCOUNT_FORMS``, as ``reset_password``."""

from __future__ import annotations

from allauth.account.forms import ResetPasswordForm
from allauth.account.models import EmailAddress


class VerifiedResetPasswordForm(ResetPasswordForm):
    """Sends the link for a new password to verified addresses only.

    Otherwise a stranger could sign up with somebody else's address, connect a sipgate account, and
    still sign in with it after the owner of the address has reset the password.
    """

    def clean_email(self) -> str:
        email = str(super().clean_email())
        verified = EmailAddress.objects.filter(email=email.lower(), verified=True).values_list(
            "user", flat=True
        )
        self.users = [user for user in self.users if user.pk in set(verified)]
        return email
