"""ASGI entry point"""

import os

from django.core.asgi import get_asgi_application

from sipgate_provider.asgi import ending_in_order

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sipgate_project.settings")
application = ending_in_order(get_asgi_application())
