#!/usr/bin/env python
"""A site that is not this project's: it knows ``sipgate_provider`` only as an installed package."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
    execute_from_command_line(sys.argv)
