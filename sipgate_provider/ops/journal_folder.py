"""Tells whether the journal's folder can take a token pair. The doctor, the metrics and a site's own checks ask it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from shutil import disk_usage

NEEDED = 1_000_000
"""Bytes that have to be free, enough for some hundred pairs."""


def why_not_writable(folder: Path) -> str:
    """Return why ``folder`` is not writable, in the operating system's words; empty if it is. The folder is made when
    it is needed; until then its nearest existing parent is tried. The file that was written is removed.
    """
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"sipgate")
        return "" if disk_usage(existing).free >= NEEDED else "the disk is full"
    except OSError as error:
        return error.strerror or type(error).__name__
