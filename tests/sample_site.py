"""A site that uses decorator and tags in every form: the URL configuration of ``test_decorators``."""

from __future__ import annotations

import asyncio
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import engines
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from sipgate_project.urls import urlpatterns as site
from sipgate_provider import errors
from sipgate_provider.client import in_thread
from sipgate_provider.decorators import sipgate_required

SMS = "sessions:sms:write"
TEMPLATE = """{% load sipgate %}{% sipgate_connection scopes="sessions:sms:write" as sipgate %}
state: {% if not sipgate.connected %}none{% elif sipgate.needs_sign_in %}ended{% elif sipgate.missing %}lacks \
{{ sipgate.missing.0 }}{% else %}ready{% endif %}
uid: {{ sipgate.connection.uid }} usable: {% if sipgate %}yes{% else %}no{% endif %}
url: {% sipgate_sign_in_url next="/there?x=1&y=2" %}
{% sipgate_button "Allow SMS" scopes="sessions:sms:write" tags="minor" %}"""


@sipgate_required
def company(request: Any) -> HttpResponse:
    return JsonResponse({"company": request.sipgate.account().company})


@sipgate_required(scopes=[SMS])
def sms(request: Any) -> HttpResponse:
    request.sipgate.post(
        "/sessions/sms", json={"smsId": "s0", "recipient": "+4915799912345", "message": "Hello!"}
    )
    return HttpResponse("sent")


@sipgate_required
def numbers(request: Any) -> HttpResponse:
    """Asks for something without having said which scope that needs."""
    return JsonResponse({"numbers": [number.number for number in request.sipgate.numbers()]})


@sipgate_required
async def company_async(request: Any) -> HttpResponse:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    account = await in_thread(request.sipgate.account)()
    ticking.cancel()
    return JsonResponse({"company": account.company, "ticks": ticks})


@method_decorator(sipgate_required(scopes=SMS), name="dispatch")
class Sms(View):
    def get(self, request: Any) -> HttpResponse:
        return HttpResponse(f"may send as {request.sipgate.connection.uid}")


@method_decorator(sipgate_required, name="get")
class CompanyAsync(View):
    async def get(self, request: Any) -> HttpResponse:
        return JsonResponse({"company": (await in_thread(request.sipgate.account)()).company})


@csrf_exempt
@sipgate_required
def write_and_fail(request: Any) -> HttpResponse:
    """Writes, then meets trouble: what was written has to go where ATOMIC_REQUESTS says."""
    get_user_model().objects.create(username="written by the view")
    assert (
        transaction.get_connection().in_atomic_block
        == (transaction.get_connection().settings_dict["ATOMIC_REQUESTS"])
    )
    raise errors.Conflict("There is one already.", endpoint="POST /blacklist/incoming", status=409)


@sipgate_required
@transaction.non_atomic_requests
def never_atomic(request: Any) -> HttpResponse:
    return HttpResponse(f"in a transaction: {transaction.get_connection().in_atomic_block}")


def tags(request: HttpRequest) -> HttpResponse:
    return HttpResponse(engines["django"].from_string(TEMPLATE).render({}, request))


urlpatterns = [
    path("company", company),
    path("sms", sms),
    path("numbers", numbers),
    path("company-async", company_async),
    path("class/sms", Sms.as_view()),
    path("class/company-async", CompanyAsync.as_view()),
    path("write-and-fail", write_and_fail),
    path("never-atomic", never_atomic),
    path("tags", tags),
    path("", include(site)),
]
