"""The site's addresses."""

from __future__ import annotations

from allauth.account.decorators import secure_admin_login
from allauth.socialaccount.models import SocialApp
from allauth.usersessions.models import UserSession
from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.urls import include, path
from django.utils.translation import gettext_lazy
from django.views.generic import TemplateView

from sipgate_provider.urls import callback_urlpatterns

from . import sandbox_buttons, views

admin.autodiscover()
admin.site.site_header = admin.site.site_title = "sipgate for Django"
admin.site.index_title = gettext_lazy("Administration")
# The client comes from the environment: a row would be ignored. People see and end their own
# sessions; deleting a user takes them along, unasked.
admin.site.unregister([SocialApp, UserSession])
# Entered through allauth's sign-in: its rate limits and any second factor hold for the admin, too.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]  # allauth's way

own_settings = TemplateView.as_view(template_name="pages/settings.html")

urlpatterns = [
    path("", views.home, name="home"),
    path("account", views.account, name="account"),
    path("account.json", views.account_json, name="account_json"),
    path("account/refresh", views.account_refresh, name="account_refresh"),
    path("account/numbers", views.numbers, name="numbers"),
    path("account/try", sandbox_buttons.try_out, name="try_out"),
    path("account/<int:pk>", views.connection, name="connection"),
    path("account/<int:pk>/end-access", views.end_access, name="end_access"),
    path("accounts/settings/", login_required(own_settings), name="settings"),
    path("accounts/export", views.account_export, name="account_export"),
    path("accounts/delete", views.account_delete, name="account_delete"),
    *callback_urlpatterns(),
    path("accounts/", include("allauth.urls")),
    path("i18n/setlang/", views.set_language, name="set_language"),
    path("admin/", admin.site.urls),
]

handler500 = "sipgate_project.views.server_error"
