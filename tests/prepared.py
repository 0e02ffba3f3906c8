"""What the server that ``tests.processes`` forks workers from imports first: Django, set up."""

import django

from tests import mutations

django.setup()
mutations.pytest_sessionstart()
