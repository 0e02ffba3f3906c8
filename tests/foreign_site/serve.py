"""Check, migrate and serve: what a person does with three commands, in one process."""

import os
import signal
import sys

import django
from django.core.management import call_command

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
    # An orderly end, in which Python warns of what is still open.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    django.setup()
    from django.conf import settings

    call_command("check", fail_level="WARNING", databases=list(settings.DATABASES))
    call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)
    for alias in settings.DATABASES:
        call_command("migrate", database=alias, verbosity=0)
    if "people" in settings.INSTALLED_APPS:
        import rows

        rows.make()
    call_command("runserver", sys.argv[1], use_reloader=False, skip_checks=True)
