"""System checks for this site's variables, for what the settings cannot find. Django runs them at every start, and so
do gunicorn and ``sipgate_doctor``.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks

from sipgate_provider.ops import journal_folder


def register_checks() -> None:
    checks.register(check_env_file, "sipgate")
    checks.register(check_journal, "sipgate")
    checks.register(check_certificates, "sipgate")


def check_env_file(**_kwargs: Any) -> Iterable[checks.CheckMessage]:
    for remark in settings.ENV_REMARKS:
        yield checks.Warning(remark, id="sipgate_project.W001")


def check_journal(**_kwargs: Any) -> Iterable[checks.CheckMessage]:
    if not settings.SIPGATE_JOURNAL_DIR:
        return
    folder = Path(settings.SIPGATE_JOURNAL_DIR)
    if reason := journal_folder.why_not_writable(folder):
        yield checks.Error(
            f"SIPGATE_JOURNAL_DIR: this user cannot keep files in {folder} ({reason}).",
            hint="Name a folder that this user may write to, or set SIPGATE_JOURNAL_DIR=off to do without the journal.",
            id="sipgate_project.E002",
        )


def check_certificates(**_kwargs: Any) -> Iterable[checks.CheckMessage]:
    name = next(
        (one for one in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(one)), ""
    )
    path = Path(os.environ.get(name, "."))
    try:
        if path.is_dir():
            return
        ssl.create_default_context(cafile=str(path))
    except OSError as error:  # ssl.SSLError is one
        yield checks.Error(
            f"{name} is not a file of certificates ({error.strerror or type(error).__name__}).",
            hint=f"Correct {name} in the environment, or remove it.",
            id="sipgate_project.E003",
        )
