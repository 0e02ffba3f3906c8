#!/usr/bin/env python
"""Run a management command of the site; a wrong configuration ends it with one sentence."""

import io
import os
import sys

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sipgate_project.settings")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # an unprintable character must not end a command
    try:
        if not any(word.startswith("--settings") for word in sys.argv):
            settings.INSTALLED_APPS  # noqa: B018  # reading one setting loads them all
    except ImproperlyConfigured as error:
        sys.exit(f"Configuration: {error}")
    try:
        execute_from_command_line(sys.argv)
    except OperationalError as error:
        sys.exit(f"The database cannot be used (DATABASE_URL): {str(error).strip()}")


if __name__ == "__main__":
    main()
