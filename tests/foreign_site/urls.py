from django.urls import include, path
from views import company

from sipgate_provider.urls import callback_urlpatterns

urlpatterns = [
    *callback_urlpatterns(),
    path("accounts/", include("allauth.urls")),
    path("company", company),
]
