"""Sign in with sipgate, and keep the tokens: an app for Django sites that use django-allauth."""
