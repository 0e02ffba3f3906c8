"""Where allauth looks for the provider's addresses: sign-in and callback."""

from django.urls import path

from .provider import oauth2_callback, oauth2_login

urlpatterns = [
    path("plain/login/", oauth2_login, name="plain_login"),
    path("plain/login/callback/", oauth2_callback, name="plain_callback"),
]
