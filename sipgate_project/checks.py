"""The system check that needs the rights of whoever runs the command."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks


@checks.register("sipgate")
def check_journal(**_kwargs: Any) -> Iterable[checks.CheckMessage]:
    """Find out whether this user may keep the journal, without making its folder."""
    folder = Path(settings.SIPGATE_JOURNAL_DIR or ".")
    there = next(place for place in (folder, *folder.parents) if os.path.exists(place))  # noqa: PTH110  # Path.exists raises for a folder of somebody else
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield checks.Error(
            f"SIPGATE_JOURNAL_DIR: this user cannot keep files in {folder}.",
            hint="Name a folder that this user may write to, or write off to do without a journal.",
            id="sipgate_project.E001",
        )
