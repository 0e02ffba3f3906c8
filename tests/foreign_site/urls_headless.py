from django.http import HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import ensure_csrf_cookie
from urls import urlpatterns as of_the_site

urlpatterns = [
    *of_the_site,
    path("_allauth/", include("allauth.headless.urls")),
    path("app/", ensure_csrf_cookie(lambda request: HttpResponse("the application"))),
]
