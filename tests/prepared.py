"""What the server that ``tests.processes`` forks workers from imports first: Django, set up."""

import django

django.setup()
