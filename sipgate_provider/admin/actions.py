"""Actions on selected connections: a page that says what will happen, then a message per connection.

Must not know: how it is done (``ops.operations``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from sipgate_provider import errors, problems
from sipgate_provider.models import SipgateToken, State
from sipgate_provider.ops import operations
from sipgate_provider.ops.operations import Operation, Outcome

CONFIRMED, BACK, DETAIL = "confirmed", "back", "detail"
Action = Callable[[Any, HttpRequest, "QuerySet[SipgateToken]"], HttpResponse | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How an operation is offered: ``consequences`` are the sentences of its confirmation page."""

    operation: Operation
    permission: str
    label: Any
    title: Any
    consequences: tuple[Any, ...]
    is_grave: bool = False

    @property
    def name(self) -> str:
        return f"{self.operation}_selected"


PLANS = (
    Plan(
        operation=Operation.REFRESH,
        permission="operate",
        label=gettext_lazy("Refresh now"),
        title=gettext_lazy("Refresh these connections now?"),
        consequences=(
            gettext_lazy("sipgate is asked for a new token pair, once per connection."),
            gettext_lazy(
                "The current token pair is replaced only by a newer one. A failed refresh deletes nothing."
            ),
            gettext_lazy(
                "Connections whose users must sign in again cannot be refreshed and stay as they are."
            ),
        ),
    ),
    Plan(
        operation=Operation.CHECK,
        permission="operate",
        label=gettext_lazy("Check at sipgate"),
        title=gettext_lazy("Check these connections at sipgate?"),
        consequences=(
            gettext_lazy(
                "sipgate is asked for the account of each connection, with its access token."
            ),
            gettext_lazy(
                "A token that is about to expire, or that sipgate rejects, is refreshed first."
            ),
        ),
    ),
    Plan(
        operation=Operation.REQUIRE_SIGN_IN,
        permission="revoke",
        label=gettext_lazy("Ask to sign in again"),
        title=gettext_lazy("Ask these users to sign in again?"),
        is_grave=True,
        consequences=(
            gettext_lazy(
                "The users must sign in to sipgate again. Until then their connections are not refreshed."
            ),
            gettext_lazy(
                "Access at sipgate stays, and the current access token is valid until it expires."
            ),
            gettext_lazy("Only a new sign-in by the user undoes this."),
        ),
    ),
    Plan(
        operation=Operation.REVOKE,
        permission="revoke",
        label=gettext_lazy("Revoke"),
        title=gettext_lazy("Revoke these connections?"),
        is_grave=True,
        consequences=(
            gettext_lazy("The tokens are deleted from this site at once."),
            gettext_lazy(
                "Access is revoked at sipgate in the background; this is tried for a day if sipgate does not answer."
            ),
            gettext_lazy("User and connection remain. Only a new sign-in by the user undoes this."),
        ),
    ),
)


def action(plan: Plan) -> Action:
    """Return Django's admin action for a plan."""

    @admin.action(description=plan.label, permissions=[plan.permission])
    def run(
        model_admin: Any, request: HttpRequest, queryset: QuerySet[SipgateToken]
    ) -> HttpResponse | None:
        rows = list(queryset.order_by("pk")[: operations.MOST_CONNECTIONS + 1])
        if len(rows) > operations.MOST_CONNECTIONS:
            text = _(
                "Select at most %(number)s connections at once; a filter helps. Nothing was done."
            )
            messages.error(request, text % {"number": operations.MOST_CONNECTIONS})
            return None
        if not rows:
            messages.warning(request, _("These connections are gone. Nothing was done."))
            return HttpResponseRedirect(_back(request))
        if CONFIRMED not in request.POST:
            return _confirmation(model_admin, request, plan, rows)
        _carry_out(request, plan, rows)
        return HttpResponseRedirect(_back(request))

    run.__name__ = plan.name
    return run


ACTIONS = [action(plan) for plan in PLANS]


def offered(model_admin: Any, request: HttpRequest) -> list[Plan]:
    """Return the plans that the person may carry out."""
    allowed = {
        name: getattr(model_admin, f"has_{name}_permission")(request)
        for name in ("operate", "revoke")
    }
    return [plan for plan in PLANS if allowed[plan.permission]]


def _confirmation(
    model_admin: Any, request: HttpRequest, plan: Plan, rows: Sequence[SipgateToken]
) -> HttpResponse:
    context = {
        **model_admin.admin_site.each_context(request),
        "title": plan.title,
        "plan": plan,
        "rows": rows,
        "warning": _warning(plan, rows),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "checkbox": ACTION_CHECKBOX_NAME,
        "back": request.GET.urlencode(),
        "back_url": _back(request),
        "detail": _detail(request),
        # Without the list's filter: a row that leaves it meanwhile is still the one that was confirmed.
        "target": reverse("admin:sipgate_provider_sipgatetoken_changelist"),
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, "sipgate_provider/admin/confirm.html", context)


def _warning(plan: Plan, rows: Sequence[SipgateToken]) -> str:
    if plan.operation is not Operation.REFRESH:
        return ""
    number = sum(row.state == State.NEEDS_SIGN_IN for row in rows)
    if not number:
        return ""
    return ngettext(
        "%(number)s of them needs a new sign-in by its user.",
        "%(number)s of them need a new sign-in by their users.",
        number,
    ) % {"number": number}


def _carry_out(request: HttpRequest, plan: Plan, rows: Sequence[SipgateToken]) -> None:
    # The uid first: the admin's page begins each message with a capital, which would change a user's name.
    names = {row.pk: f"{row.connection.uid} ({row.connection.user})" for row in rows}
    actor = request.user.get_username()
    try:
        outcomes = operations.run(plan.operation, list(names), actor=actor)
    except errors.SipgateError as error:
        messages.error(request, error.message)
        return
    for outcome in outcomes:
        level, text = _message(plan.operation, outcome)
        messages.add_message(request, level, f"{names[outcome.connection_id]}: {text}")


def _message(operation: Operation, outcome: Outcome) -> tuple[int, str]:
    if outcome.error is not None:
        return messages.ERROR, _error_message(outcome.error, outcome.duration_ms)
    if outcome.is_pending:
        return messages.WARNING, _(
            "not finished yet. It continues in the background; see the history."
        )
    took = {"ms": outcome.duration_ms}
    if operation is Operation.CHECK:
        return messages.SUCCESS, _("sipgate answered with HTTP 200 in %(ms)s ms.") % took
    if operation is Operation.REFRESH:
        return messages.SUCCESS, _("refreshed in %(ms)s ms.") % took
    if not outcome.changed:
        return messages.INFO, _("nothing to do.")
    if operation is Operation.REQUIRE_SIGN_IN:
        return messages.SUCCESS, _("needs a new sign-in now.")
    return messages.SUCCESS, _("revoked; access is being revoked at sipgate.")


def _error_message(error: errors.SipgateError, duration_ms: int) -> str:
    facts = [f"HTTP {error.status}" if error.status else "", error.code or "", f"{duration_ms} ms"]
    return _("%(title)s. %(message)s (%(facts)s; reference %(reference)s)") % {
        "title": problems.describe(error).title,
        "message": error.message,
        "facts": ", ".join(fact for fact in facts if fact),
        "reference": error.reference,
    }


def _detail(request: HttpRequest) -> str:
    pk = request.POST.get(DETAIL, "")
    return pk if is_key(pk) else ""


def _back(request: HttpRequest) -> str:
    """Return where the person came from: the connection's page, or the list as it was filtered."""
    detail = _detail(request)
    if detail:
        return reverse("admin:sipgate_provider_sipgatetoken_change", args=[detail])
    query = QueryDict(
        request.POST.get(BACK, "") or request.META.get("QUERY_STRING", "")
    ).urlencode()
    url = reverse("admin:sipgate_provider_sipgatetoken_changelist")
    return f"{url}?{query}" if query else url


def is_key(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19
