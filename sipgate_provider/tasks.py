"""Keepalive for task queues: a plain function to run at regular intervals."""

from __future__ import annotations

from sipgate_provider import errors
from sipgate_provider.ops import keepalive as keeping


def keepalive() -> dict[str, object]:
    """Do once what ``manage.py sipgate_keepalive`` does; return its report, as ``--json`` does.

    Several may run at once.

    Raises:
        errors.SipgateError: it stopped early. The message says why.
    """
    report = keeping.run()
    if report.stopped:
        raise errors.SipgateError(report.stopped)
    return report.as_dict()
