"""A form that a site names in allauth's ``ACCOUNT_FORMS``, as ``reset_password``."""

from __future__ import annotations

from allauth.account.forms import ResetPasswordForm
from allauth.account.models import EmailAddress


class VerifiedResetPasswordForm(ResetPasswordForm):
    """Sends a new password to a verified address only.

    A stranger may have signed up with somebody else's address and connected a sipgate account: once its owner had set a
    password and used the account, the stranger's sipgate would open it, too.
    """

    def clean_email(self) -> str:
        email = str(super().clean_email())
        verified = EmailAddress.objects.filter(email=email.lower(), verified=True).values_list("user", flat=True)
        self.users = [user for user in self.users if user.pk in set(verified)]
        return email
