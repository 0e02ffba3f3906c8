"""The site's addresses."""

from __future__ import annotations

from allauth.account.decorators import secure_admin_login
from allauth.socialaccount.models import SocialApp
from django.contrib import admin
from django.urls import include, path

from sipgate_provider.urls import callback_urlpatterns

from . import views

admin.autodiscover()
if admin.site.is_registered(SocialApp):
    admin.site.unregister(SocialApp)  # this site's client comes from the environment: a row would be ignored
# Entered through allauth's sign-in: its rate limits and any second factor hold for the admin, too.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]  # allauth's documented way

urlpatterns = [
    path("", views.home, name="home"),
    path("account", views.account, name="account"),
    path("account.json", views.account_json, name="account_json"),
    path("account/refresh", views.account_refresh, name="account_refresh"),
    *callback_urlpatterns(),
    path("accounts/", include("allauth.urls")),
    path("i18n/", include("django.conf.urls.i18n")),
    path("admin/", admin.site.urls),
]
