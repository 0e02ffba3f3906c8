"""Settings of a process that a test starts: the test's own database, and the test's counterpart."""

from __future__ import annotations

import json
import os

from tests.settings import *  # noqa: F403  # the same, but for what follows

_told = json.loads(os.environ["SIPGATE_WORKER"])
_database = DATABASES["default"]  # noqa: F405  # from the settings above
_database["NAME"] = _told["database"]
_database["ATOMIC_REQUESTS"] = _told.get("atomic_requests", False)
for _name, _value in _told.get("settings", {}).items():
    globals()[_name] = _value
