"""Two ways to divide a site's tables among two databases."""

PEOPLE = {"auth", "contenttypes", "sessions", "account", "socialaccount", "sipgate_provider"}


class SipgateHere:
    """Everything about people lies in ``default``; nothing of it may be made in ``archive``."""

    place = "default"

    def db_for_read(self, model, **hints):
        return self.place if model._meta.app_label in PEOPLE else None

    db_for_write = db_for_read

    def allow_relation(self, one, other, **hints):
        return True

    def allow_migrate(self, db, app_label, **hints):
        return db == self.place if app_label in PEOPLE else None


class PeopleInTheArchive(SipgateHere):
    place = "archive"
