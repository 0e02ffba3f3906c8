"""Settings of a process that a test starts: the test's own database, and the test's counterpart."""

from __future__ import annotations

import json
import os

from tests.settings import *  # noqa: F403  # the same, but for what follows

_told = json.loads(os.environ["SIPGATE_WORKER"])
DATABASES["default"]["NAME"] = _told["database"]  # noqa: F405  # from the settings above
globals().update(_told["settings"])
