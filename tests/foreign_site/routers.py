"""Divides the site's tables among two databases."""

PEOPLE = {"account", "auth", "contenttypes", "people", "sessions", "sipgate_provider", "sites"}
PEOPLE |= {"admin", "socialaccount"}


class PeopleInTheArchive:
    """Everything about people lies in ``archive``; nothing of it may be made in ``default``."""

    def db_for_read(self, model, **hints):
        return "archive" if model._meta.app_label in PEOPLE else None

    db_for_write = db_for_read

    def allow_relation(self, one, other, **hints):
        return True

    def allow_migrate(self, db, app_label, **hints):
        return db == "archive" if app_label in PEOPLE else None
