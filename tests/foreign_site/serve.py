"""Check, migrate and serve in one process: what a person does with three commands, started once instead of three times.

What a person would click together before (a row of a table) is done by the test's lines in between.
"""

import os
import signal
import sys

import django
from django.core.management import call_command

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # an orderly end, in which Python warns of what is open
    django.setup()
    from django.conf import settings

    call_command("check", fail_level="WARNING", databases=list(settings.DATABASES))
    for alias in settings.DATABASES:
        call_command("migrate", database=alias, verbosity=0)
    exec(os.environ.get("FOREIGN_PREPARE", ""))
    call_command("runserver", sys.argv[1], use_reloader=False, skip_checks=True)
