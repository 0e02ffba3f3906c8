"""Without allauth's pages: a frontend has its own."""

from awkward import *

HEADLESS_ONLY = True
LOGIN_URL = "/app/login"
