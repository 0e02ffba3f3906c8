from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.http import HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import ensure_csrf_cookie
from urls import urlpatterns as of_the_site


@login_not_required
@ensure_csrf_cookie
def application(request):
    return HttpResponse("the application")


urlpatterns = [
    *of_the_site,
    path("admin/", admin.site.urls),
    path("_allauth/", include("allauth.headless.urls")),
    path("app/", application),
]
