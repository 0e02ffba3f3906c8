#!/usr/bin/env python
"""Run a management command of the site. A configuration that cannot work ends here, in one sentence."""

import os
import sys

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sipgate_project.settings")
    try:
        if not any(word.startswith("--settings") for word in sys.argv):
            settings.INSTALLED_APPS  # noqa: B018  # reading one setting loads them all
    except ImproperlyConfigured as error:
        sys.exit(f"Configuration: {error}")
    execute_from_command_line(sys.argv)
