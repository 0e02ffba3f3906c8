"""ASGI entry point"""

import os

from django.core.asgi import get_asgi_application

from sipgate_project import database

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sipgate_project.settings")
application = get_asgi_application()
database.limit_statements()
